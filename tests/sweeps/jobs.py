"""What jobs of the tests do; a module of its own because a job's process imports it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from healing_mnist.checks import UserError


def describe(number):
    """What a job sees of its surroundings."""
    print("to stdout", number)
    print("to stderr", number, file=sys.stderr)
    return {
        "number": number,
        "pid": os.getpid(),
        "gpus": os.environ["CUDA_VISIBLE_DEVICES"],
        "threads": os.environ["OMP_NUM_THREADS"],
        "cores": sorted(os.sched_getaffinity(0)),
        "span": (time.time(), time.sleep(0.1), time.time())[::2],
    }


def fail(how):
    if how == "raise":
        raise ValueError("no luck today")
    if how == "mistake":
        raise UserError("model.size=-1: must be positive")
    if how == "sys.exit":
        sys.exit(3)
    if how == "os._exit":
        os._exit(7)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        time.sleep(600)
    return how


def count(path: Path, succeed_at: int):
    """Fail until called so many times."""
    calls = len(path.read_text()) + 1 if path.exists() else 1
    path.write_text("x" * calls)
    if calls < succeed_at:
        raise RuntimeError(f"call {calls}")
    return calls


def with_child(note: Path):
    """Start a process that would outlive the job, note both, and wait."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    note.write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)


def fail_beside(note: Path):
    """Fail once `with_child` has noted its processes."""
    while not note.exists() or len(note.read_text().split()) < 2:
        time.sleep(0.02)
    raise ValueError("no luck today")


def nothing(number):
    return number
