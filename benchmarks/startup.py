"""How long until something happens: questions to train.py, and its first training step with the parts before it.

    python benchmarks/startup.py [--rounds 5]

Targets: `--help` and `--cfg job` at most 0.5 s more than `import hydra`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = {
    "import hydra": ["-c", "import hydra"],
    "train.py --help": [str(ROOT / "train.py"), "--help"],
    "train.py --cfg job": [str(ROOT / "train.py"), "--cfg", "job"],
}
# Runs in a fresh interpreter and prints, for each part, the seconds since the process was asked for.
FIRST_STEP = """
import sys, time
asked, folder = float(sys.argv[1]), sys.argv[2]
def passed(what): print(f"{what}\\t{time.time() - asked:.3f}", flush=True)
passed("interpreter")
from healing_mnist.imports import importing
with importing():
    import torch; passed("import torch")
    import lightning; passed("import lightning")
    from healing_mnist import build, config, runs; passed("import the rest")
cfg = config.compose(["experiment=joint", "trainer=cpu", "analysis=none", f"output_dir={folder}"]); passed("compose")
build.check(cfg); passed("check")
data = build.build_data(cfg); data.setup(); passed("data")
task = build.build_task(cfg); trainer = build.make_trainer(cfg, config.folder(cfg)); passed("model and trainer")
class Stop(lightning.Callback):
    def on_train_batch_end(self, *_):
        passed("first step"); sys.stdout.flush(); import os; os._exit(0)
trainer.callbacks.append(Stop())
trainer.fit(task, data)
"""


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=tempfile.gettempdir())
    return time.perf_counter() - start


def parts() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        arguments = [sys.executable, "-c", FIRST_STEP, str(time.time()), folder]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT)
    return {what: float(at) for what, at in (line.split("\t") for line in done.stdout.splitlines() if "\t" in line)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = range(parser.parse_args().rounds)
    times: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    for _ in rounds:
        for name, arguments in QUESTIONS.items():
            times[name].append(seconds(arguments))
    base = statistics.median(times["import hydra"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:20} {median:6.2f} s   {median - base:+.2f} s against import hydra")
    stamps = [parts() for _ in rounds]
    before = 0.0
    print("\nto the first training step:")
    for what in stamps[0]:
        at = statistics.median(stamp[what] for stamp in stamps)
        print(f"{what:20} {at - before:6.2f} s   {at:6.2f} s in all")
        before = at


if __name__ == "__main__":
    main()
