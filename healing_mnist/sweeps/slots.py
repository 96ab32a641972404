"""Device slots: the places on this machine where a job may run, one job at a time in each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from healing_mnist.checks import UserError

MEMORY_PER_JOB = 1.5 * 2**30  # bytes; what a small training with its imports takes at most on a CPU


@dataclass(frozen=True)
class Slot:
    """One place for a job: a device that it alone sees, and its share of the cores.

    `device` is a value for CUDA_VISIBLE_DEVICES, empty for the CPU.
    """

    device: str
    cores: tuple[int, ...]

    def enter(self) -> None:
        """Confine the calling process to this slot; called in the job's process before CUDA starts."""
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # the order nvidia-smi counts in
        os.environ["CUDA_VISIBLE_DEVICES"] = self.device
        for library in ("OMP", "MKL", "OPENBLAS"):
            os.environ[f"{library}_NUM_THREADS"] = str(len(self.cores))
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.cores)
        if "torch" in sys.modules:  # imported by the fork server, which asked for the number of cores then
            sys.modules["torch"].set_num_threads(len(self.cores))


def find_gpus() -> list[str]:
    """Identifiers of the GPUs (or MIG instances) this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [device.strip() for device in visible.split(",")]  # CUDA, too, ends at the first that is none
        return list(takewhile(re.compile(r"\d+$|GPU-|MIG-").match, named))
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(listing.stdout) if listing.returncode == 0 else []


def parse_gpus(listing: str) -> list[str]:
    """Read ``nvidia-smi -L``: a GPU by its number, or its MIG instances by their UUID where it has any."""
    gpus: list[list[str]] = []
    for line in listing.splitlines():
        if match := re.match(r"GPU (\d+):", line):
            gpus.append([match[1]])
        elif gpus and (match := re.search(r"\(UUID: (MIG-[^)]+)\)", line)):
            gpus[-1] = [*(name for name in gpus[-1] if name.startswith("MIG-")), match[1]]
    return [name for gpu in gpus for name in gpu]


def cores() -> list[int]:
    """Numbers of the cores this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def make_slots(
    devices: str | int | Sequence[int | str] = "auto",
    per_device: int | None = None,
    accelerator: str = "auto",
    jobs: int | None = None,
) -> list[Slot]:
    """Divide devices and cores into slots.

    Args:
        devices: ``auto`` (every GPU, else the CPU), ``cpu``, or the GPU or GPUs to use as `nvidia-smi` numbers them.
        per_device: jobs that share one device. By default one on a GPU; on the CPU as many as there are cores, within
            the free memory and the number of jobs, because small networks run fastest on one thread each.
        accelerator: what the jobs ask of their trainer; ``cpu`` leaves the GPUs alone.
        jobs: how many jobs there are, when known.

    Raises:
        UserError: a device that does not exist.
    """
    if per_device is not None and per_device < 1:
        raise UserError(f"hydra.launcher.slots_per_device={per_device}: must be at least 1")
    gpus = [] if devices == "cpu" or (devices == "auto" and accelerator == "cpu") else find_gpus()
    if not isinstance(devices, str):
        wanted = [str(device) for device in ([devices] if isinstance(devices, int) else devices)]
        if missing := [device for device in wanted if device not in gpus]:
            there = ", ".join(gpus) if gpus else "none"
            raise UserError(f"hydra.launcher.devices={wanted}: no GPU {', '.join(missing)} here; there is {there}")
        gpus = wanted
    elif devices not in ("auto", "cpu"):
        raise UserError(f"hydra.launcher.devices={devices}: must be auto, cpu or a list of GPUs such as [0,1]")
    if not gpus:
        return _divide([""] * (per_device or _cpu_slots(jobs)))
    return _divide([gpu for _ in range(per_device or 1) for gpu in gpus][:jobs])  # one on every GPU before a second


def _cpu_slots(jobs: int | None) -> int:
    fitting = [len(cores()), int(_free_memory() // MEMORY_PER_JOB)] + ([jobs] if jobs else [])
    return max(1, min(fitting))


def _free_memory() -> float:
    try:
        with open("/proc/meminfo") as lines:
            return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return float("inf")


def _divide(devices: Sequence[str]) -> list[Slot]:
    """Give each slot its share of the cores; slots beyond the number of cores share one."""
    numbers, count = cores(), len(devices)
    if count >= len(numbers):
        return [Slot(device, (numbers[i % len(numbers)],)) for i, device in enumerate(devices)]
    bounds = [len(numbers) * i // count for i in range(count + 1)]
    return [Slot(device, tuple(numbers[bounds[i] : bounds[i + 1]])) for i, device in enumerate(devices)]


def describe(slots: Sequence[Slot]) -> str:
    """One line such as ``2 slots on the CPU, 1 core each``."""
    devices = list(dict.fromkeys(slot.device for slot in slots))
    where = "the CPU" if devices == [""] else f"GPU {', '.join(devices)}"
    least = min(len(slot.cores) for slot in slots)
    return f"{len(slots)} slot{'s' * (len(slots) > 1)} on {where}, {least} core{'s' * (least > 1)} each"
