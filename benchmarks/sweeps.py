"""A sweep beside the same trainings one command after another, and what the launcher itself costs.

    python benchmarks/sweeps.py [--source mnist --root FOLDER] [--images 10000] [--rounds 1] [--trials 36]

Nine loss weights, one epoch each: `python train.py` nine times in turn against one `python sweep.py`, start-up
included; then trials a minute of a longer sweep, counted from the end of its first job. Targets: 5 times as fast, 8
times the trials a minute, at most 0.3 s a job beyond its training. Last, so many jobs that do nothing: seconds a job
and memory of the parent, which must both stay flat.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from healing_mnist.sweeps.pool import PRELOAD, Job, Pool
from healing_mnist.sweeps.slots import describe, make_slots

ROOT = Path(__file__).parent.parent
WEIGHTS = "0,0.2,0.5,0.8,0.9,0.95,0.99,1,dynamic"


def run(script: str, *overrides: str) -> float:
    """Seconds that a script of the project takes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, ROOT / script, *overrides], check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - started


def rate(folder: Path) -> float:
    """Trials a minute of a finished sweep once its first job had ended."""
    ends = sorted(path.stat().st_mtime for path in folder.glob("*/metrics.json"))
    return 60 * (len(ends) - 1) / (ends[-1] - ends[0])


def compare(common: list[str], rounds: int, trials: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        turns, sweeps, rates, training = [], [], [], []
        for i in range(rounds):
            turn = 0.0
            for weight in WEIGHTS.split(","):
                chosen = [f"task.reconstruction_weight={weight}", f"run_dir={place}/turn-{i}-{weight}"]
                turn += run("train.py", "experiment=joint", *chosen, *common)
            turns.append(turn)
            sweeps.append(run("sweep.py", "sweep=loss_weight", f"hydra.sweep.dir={place}/sweep-{i}", *common))
            longer = Path(place) / f"longer-{i}"
            seeds = ",".join(map(str, range(max(1, trials // 9))))
            run("sweep.py", "sweep=loss_weight", f"seed={seeds}", f"hydra.sweep.dir={longer}", *common)
            rates.append(rate(longer))
            training.append(statistics.median(seconds_in_train(path) for path in longer.glob("*/environment.json")))
        turn, sweep, fast = map(statistics.median, (turns, sweeps, rates))
        slots = make_slots(accelerator="cpu", jobs=9)
        overhead = 60 * len(slots) / fast - statistics.median(training)
        print(f"nine commands in turn   {turn:7.1f} s   {9 * 60 / turn:6.1f} trials a minute")
        print(f"one sweep of nine       {sweep:7.1f} s   {turn / sweep:6.2f} times as fast (target 5)")
        print(f"once started            {fast:7.1f} trials a minute, {fast * turn / 540:.2f} times as many (target 8)")
        print(f"beyond training         {overhead:7.2f} s a job in each of {describe(slots)} (target 0.3)")


def seconds_in_train(environment: Path) -> float:
    return json.loads(environment.read_text())["seconds"]


def nothing() -> None:
    pass


def trivial(count: int) -> None:
    parent, pool = psutil.Process(), Pool(make_slots("cpu", jobs=count), preload=PRELOAD)
    with tempfile.TemporaryDirectory() as place:
        list(pool.run([Job("first", nothing, Path(place) / "log")]))  # wait for the imports
        marks, started = [], time.perf_counter()
        jobs = (Job(str(i), nothing, Path(place) / f"{i}.log") for i in range(count))
        for i, _ in enumerate(pool.run(jobs), 1):
            if i % max(1, count // 5) == 0:
                now = time.perf_counter()
                marks.append((i, (now - started) / max(1, count // 5), parent.memory_info().rss / 2**20))
                started = now
    print(f"\n{count} jobs that do nothing, {describe(pool.slots)}\n   jobs   s a job   parent MiB")
    for i, seconds, memory in marks:
        print(f"{i:7}{seconds:10.3f}{memory:13.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="digits")
    parser.add_argument("--root", default=None)
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--trials", type=int, default=36)
    parser.add_argument("--trivial", type=int, default=1000)
    options = parser.parse_args()
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    common = [
        "trainer=cpu",
        "trainer.max_epochs=1",
        "trainer.limit_val_batches=2",
        "trainer.limit_test_batches=2",
        f"data.source={options.source}",
        f"data.limit={options.images}",
        "analysis=none",
        "logger=none",
        *([f"data.root={options.root}"] if options.root else []),
    ]
    if options.trials:
        compare(common, options.rounds, options.trials)
    if options.trivial:
        trivial(options.trivial)


if __name__ == "__main__":
    main()
