#!/bin/bash
# A sweep through a real SLURM on this machine: one controller, one node, no configuration of the system is touched.
# Needs root, `apt-get install slurmctld slurmd slurm-client munge` and `pip install -e .[slurm]`.
#   bash tests/cluster/slurm_one_machine.sh [python]
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${1:-$root/.venv/bin/python}
here=$(mktemp -d)
chmod 755 "$here"
daemons=()
finish() {
    kill "${daemons[@]}" 2>/dev/null || true
    wait || true
    rm -rf "$here"
}
trap finish EXIT

# munge signs messages between the daemons
dd if=/dev/urandom of="$here/munge.key" bs=1024 count=1 status=none
chmod 600 "$here/munge.key"
munged --foreground --force --key-file="$here/munge.key" --socket="$here/munge.socket" --pid-file="$here/munge.pid" \
    --log-file="$here/munged.log" --seed-file="$here/munge.seed" 2>"$here/out-munge" &
daemons+=($!)

cat >"$here/slurm.conf" <<END
ClusterName=one
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$here/munge.socket
CredType=cred/munge
StateSaveLocation=$here/state
SlurmdSpoolDir=$here/spool
SlurmctldPidFile=$here/slurmctld.pid
SlurmdPidFile=$here/slurmd.pid
SlurmctldLogFile=$here/slurmctld.log
SlurmdLogFile=$here/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF="$here/slurm.conf"
mkdir -p "$here/state" "$here/spool"
sleep 1
slurmctld -D -c 2>"$here/out-controller" &
daemons+=($!)
sleep 2
slurmd -D 2>"$here/out-node" &
daemons+=($!)
for _ in $(seq 30); do
    sinfo -h -o %t 2>/dev/null | grep -q idle && break
    sleep 1
done
sinfo

sweep() {
    PYTHONPATH="$root:$root/tests/sweeps" TRIVIAL_SECONDS=1 "$python" "$root/tests/sweeps/trivial.py" experiment=joint \
        hydra/launcher=submitit_slurm hydra.launcher.cpus_per_task=1 hydra.launcher.mem_gb=1 hydra.launcher.timeout_min=5 \
        "hydra.sweep.dir=$here/sweep" task.reconstruction_weight=0.1,0.25,0.5 seed=1,2
}
printf raise >"$here/break-0.5"
sweep && { echo "a failed job must show in the exit code"; exit 1; }
test "$(ls "$here"/sweep/*/metrics.json | wc -l)" = 4
rm "$here/break-0.5"
sweep
test "$(ls "$here"/sweep/*/metrics.json | wc -l)" = 6
grep -l '"node": "[0-9]' "$here"/sweep/*/metrics.json | wc -l | grep -qx 6
echo "slurm: six jobs through the queue, two failures, resumed: good"
