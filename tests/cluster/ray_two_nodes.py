"""A sweep on a real Ray cluster of two nodes on this machine: ``python tests/cluster/ray_two_nodes.py``.

Needs ``pip install -e .[ray]``. The first node has two cores and the second one three; both must get jobs, one job is
killed, and the same command again finishes the sweep.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ray.cluster_utils import Cluster

ROOT = Path(__file__).parent.parent.parent
TRIVIAL = ROOT / "tests" / "sweeps" / "trivial.py"


def sweep(address: str, folder: Path) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        str(TRIVIAL),
        "experiment=joint",
        "hydra/launcher=ray",
        f"hydra.launcher.ray.init.address='{address}'",
        f"hydra.sweep.dir={folder}",
        "task.reconstruction_weight=0.1,0.25,0.5,0.7",
        "seed=1,2",
    ]
    environment = os.environ | {"TRIVIAL_SECONDS": "2", "PYTHONPATH": f"{ROOT}:{TRIVIAL.parent}"}
    return subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)


def main() -> None:
    cluster = Cluster()
    for cores in (2, 3):
        cluster.add_node(num_cpus=cores, object_store_memory=80 * 2**20)
    cluster.wait_for_nodes()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "sweep"
        (Path(place) / "break-0.5").write_text("raise")
        first = sweep(cluster.address, folder)
        print(first.stdout[-3000:], first.stderr[-3000:])
        assert first.returncode == 1, "a failed job must show in the exit code"
        assert "no luck today" in first.stderr
        assert len(list(folder.glob("*/metrics.json"))) == 6
        (Path(place) / "break-0.5").unlink()
        second = sweep(cluster.address, folder)
        print(second.stdout[-3000:], second.stderr[-3000:])
        assert second.returncode == 0
        assert "2 of 8 jobs to run" in second.stdout
        nodes = {json.loads(path.read_text())["node"] for path in folder.glob("*/metrics.json")}
        assert len(nodes) == 2, f"jobs ran on {nodes} only"
    cluster.shutdown()
    print("ray: two nodes, eight jobs, one failure, resumed: good")


if __name__ == "__main__":
    main()
