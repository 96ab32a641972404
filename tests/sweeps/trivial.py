"""Jobs that take a moment and leave what a training leaves, so that sweeps can be tried without one."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from omegaconf import DictConfig

from healing_mnist import cli
from healing_mnist.config import plain
from healing_mnist.files import atomic_write

EPOCHS = 4


def work(cfg: DictConfig) -> float:
    """A training in miniature: it continues where it was stopped, counts its epochs, and writes metrics.json last.

    A file ``break-<weight>`` beside the folder makes the job fail the way the file says.
    """
    place, weight = Path(cfg.run_dir), cfg.task.reconstruction_weight
    how = place.parent.parent / f"break-{weight}"
    if how.exists():
        _break(how.read_text())
    if (place / "metrics.json").exists():
        return json.loads((place / "metrics.json").read_text())["objective"]
    place.mkdir(parents=True, exist_ok=True)
    atomic_write(place / "config.yaml", json.dumps(plain(cfg)))
    last = place / "last"
    for epoch in range(int(last.read_text()) if last.exists() else 0, EPOCHS):
        time.sleep(float(os.environ.get("TRIVIAL_SECONDS", 0)) / EPOCHS)
        atomic_write(last, str(epoch + 1))
        print(f"epoch {epoch + 1} in process {os.getpid()}", flush=True)
    weight = 0.5 if weight == "dynamic" else weight
    loss = (weight - 0.3) ** 2 + 0.01 * cfg.seed
    found = {
        "metrics": {"test/loss": loss + 0.001, "test/accuracy": 1 - loss, "test/constant": 7.0},
        "best": {"epoch": 3, "train/loss": 0.0, "val/loss": loss},
        "objective": loss,
        "collapsed": weight == 0.75,
        "node": _node(),
    }
    atomic_write(place / "metrics.json", json.dumps(found))
    return loss


def draw_slowly(folder: Path) -> None:
    """In the place of the plots of a sweep."""
    atomic_write(folder / "drawing", str(os.getpid()))
    time.sleep(60)


def _node() -> str:
    """Where on a cluster the job ran."""
    if "ray" in sys.modules:
        return sys.modules["ray"].get_runtime_context().get_node_id()
    return os.environ.get("SLURM_JOB_ID", "")


def _break(how: str) -> None:
    if how == "raise":
        raise ValueError("no luck today")
    if how == "exit":
        os._exit(7)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        time.sleep(600)


if __name__ == "__main__":
    sys.argv.append("--multirun")
    cli.main(work, "train")
