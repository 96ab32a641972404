"""What this machine is."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """The CPU's name, or what the system tells of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
