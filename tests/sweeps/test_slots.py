"""Device slots: which devices there are, how cores are divided."""

import pytest

from healing_mnist.checks import UserError
from healing_mnist.sweeps import slots
from healing_mnist.sweeps.slots import describe, find_gpus, make_slots, parse_gpus

TWO_GPUS = """GPU 0: NVIDIA H200 (UUID: GPU-11111111-aaaa)
GPU 1: NVIDIA H200 (UUID: GPU-22222222-bbbb)
"""
MIG = """GPU 0: NVIDIA A100 (UUID: GPU-11111111-aaaa)
  MIG 3g.20gb     Device  0: (UUID: MIG-aaaa)
  MIG 3g.20gb     Device  1: (UUID: MIG-bbbb)
GPU 1: NVIDIA A100 (UUID: GPU-22222222-bbbb)
"""


@pytest.fixture
def machine(monkeypatch):
    """Pretend to have these GPUs and cores, and memory for `fitting` jobs."""

    def pretend(gpus=(), cores=8, fitting=100):
        monkeypatch.setattr(slots, "find_gpus", lambda: list(gpus))
        monkeypatch.setattr(slots, "cores", lambda: list(range(cores)))
        monkeypatch.setattr(slots, "_free_memory", lambda: fitting * slots.MEMORY_PER_JOB)

    return pretend


def test_nvidia_smi_is_read():
    assert parse_gpus(TWO_GPUS) == ["0", "1"]
    assert parse_gpus(MIG) == ["MIG-aaaa", "MIG-bbbb", "1"]
    assert parse_gpus("No devices were found") == []


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("2, 3", ["2", "3"]), ("", []), ("-1", []), ("MIG-a", ["MIG-a"]), ("NoDevFiles", []), ("0,-1,1", ["0"])],
)
def test_only_visible_devices_count(monkeypatch, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert find_gpus() == expected


def test_a_machine_without_nvidia_smi_has_no_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", "")
    assert find_gpus() == []


def test_one_job_a_gpu_and_all_gpus_before_a_second_round(machine):
    machine(gpus=["0", "1"])
    assert [slot.device for slot in make_slots()] == ["0", "1"]
    assert [slot.device for slot in make_slots(per_device=2)] == ["0", "1", "0", "1"]
    assert [slot.device for slot in make_slots(per_device=2, jobs=3)] == ["0", "1", "0"]
    assert [slot.device for slot in make_slots(devices=[1])] == ["1"]
    assert [slot.device for slot in make_slots(devices=1)] == ["1"]
    assert [slot.device for slot in make_slots(accelerator="cpu")] == [""] * 8
    assert [slot.device for slot in make_slots(devices="cpu", per_device=3)] == [""] * 3


@pytest.mark.parametrize(("count", "shares"), [(1, [8]), (2, [4, 4]), (3, [2, 3, 3]), (8, [1] * 8), (11, [1] * 11)])
def test_every_core_is_given_once(machine, count, shares):
    machine()
    made = make_slots(per_device=count)
    assert [len(slot.cores) for slot in made] == shares
    given = [core for slot in made for core in slot.cores]
    assert set(given) == set(range(8))
    assert count > 8 or len(given) == 8


def test_the_cpu_has_as_many_slots_as_cores_memory_and_jobs_allow(machine):
    machine(cores=8)
    assert len(make_slots()) == 8
    assert len(make_slots(jobs=3)) == 3
    machine(cores=8, fitting=2.5)
    assert len(make_slots()) == 2
    machine(cores=8, fitting=0)
    assert len(make_slots()) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"devices": [0, 7]}, "no GPU 7 here; there is 0, 1"),
        ({"devices": "all"}, "must be auto, cpu or a list of GPUs"),
        ({"per_device": 0}, "slots_per_device=0: must be at least 1"),
    ],
)
def test_mistakes(machine, settings, message):
    machine(gpus=["0", "1"])
    with pytest.raises(UserError) as error:
        make_slots(**settings)
    assert message in str(error.value)


def test_in_words(machine):
    machine(gpus=["0", "1"])
    assert describe(make_slots(per_device=2)) == "4 slots on GPU 0, 1, 2 cores each"
    assert describe(make_slots("cpu", 1)) == "1 slot on the CPU, 8 cores each"
