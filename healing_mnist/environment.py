"""With what a run was computed: packages, machine and the commit of the code."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from healing_mnist.files import atomic_write
from healing_mnist.machine import processor


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


# Of the code that is running, whatever is committed while it does.
COMMIT, CHANGES = _git("rev-parse", "HEAD"), _git("status", "--porcelain")


def write_environment(place: Path, seconds: float) -> None:
    """Write environment.json into the folder of a run that took `seconds` of wall clock."""
    packages = ("torch", "lightning", "hydra-core", "omegaconf", "torchmetrics", "scikit-learn", "numpy")
    cuda = torch.cuda.is_available()
    environment = {
        "seconds": round(seconds, 2),
        "commit": COMMIT,
        "uncommitted_changes": None if CHANGES is None else bool(CHANGES),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "machine": {
            "system": platform.platform(),
            "cpu": f"{processor()}, {torch.backends.cpu.get_cpu_capability()}",
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if cuda else None,
        },
    }
    atomic_write(place / "environment.json", json.dumps(environment, indent=2) + "\n")
