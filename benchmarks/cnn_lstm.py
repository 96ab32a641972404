"""Training the CNN-LSTM on six frames with a frozen encoder: its output kept, or computed again every epoch.

    python benchmarks/cnn_lstm.py [--sequences 20000] [--rounds 7] [--threads 2 | --cpu-time]

Four ways take turns, an epoch each, so that a busy machine slows all of them:
  loop, stored frames   a bare loop; input frames lie rendered in memory as uint8, each is encoded every epoch
  loop, drawn frames    a bare loop; frames are rendered from the table and encoded every epoch
  loop, kept            a bare loop over the kept output of the encoder; only the target is rendered
  train.py              the same through the task and the trainer as train.py builds them

Targets: train.py at least 1.5 (one-directional) and 1.35 (two-directional) times `loop, stored frames`, and a step at
most 1.05 times `loop, kept`. The table shows medians over the rounds, ratios are medians of the ratios within a round.
On a busy machine --cpu-time counts the seconds that a processor worked on a single thread instead.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from healing_mnist.build import build_data, build_task, make_trainer
from healing_mnist.config import compose
from healing_mnist.data.base import RenderedData
from healing_mnist.networks.cnn_lstm import CNNLSTM
from healing_mnist.tasks.base import Task


def build(sequences: int, bidirectional: bool, epochs: int) -> tuple:
    cfg = compose(
        [
            "experiment=cnn_lstm",
            "data/sequences=const_plain",
            f"data.num_sequences={sequences}",
            "data.num_eval_sequences=256",
            f"model.bidirectional={bidirectional}",
            "trainer=cpu",
            f"trainer.max_epochs={epochs}",
            "trainer.limit_val_batches=1",
            "trainer.enable_progress_bar=false",
            "analysis=none",
        ]
    )
    data, task = build_data(cfg), build_task(cfg)
    data.setup()
    return cfg, data, task


def steps(task: Task, total: int) -> Callable[[Tensor], None]:
    """One optimizer step for a loss, with the settings of the experiment."""
    optimizer = task._optimizer([p for p in task.parameters() if p.requires_grad])
    schedule = task._scheduler(optimizer, total)["scheduler"]

    def step(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    return step


def batches(data: RenderedData) -> Iterator[Tensor]:
    return iter(torch.randperm(len(data.tables["train"]["index"])).split(data.batch_size))


def loop(data: RenderedData, task: Task, total: int, encode: Callable[[CNNLSTM, Tensor], Tensor]) -> Callable[[], None]:
    network, step = task.network.train(), steps(task, total)

    def epoch() -> None:
        for index in batches(data):
            target = data.batch("train", index).target
            step(F.mse_loss(network.predict(encode(network, index)).image, target))

    return epoch


class InTurns(L.Callback):
    """After each of the trainer's epochs, run and time the other ways."""

    def __init__(self, others: dict[str, Callable[[], None]], clock: Callable[[], float]):
        self.others, self.clock = others, clock
        self.seconds: dict[str, list[float]] = {name: [] for name in ["train.py", *others]}

    def on_train_epoch_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._start = self.clock()

    def on_train_batch_end(self, trainer: L.Trainer, *_) -> None:
        if trainer.is_last_batch:
            self.seconds["train.py"].append(self.clock() - self._start)

    def on_train_epoch_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        for name, epoch in self.others.items():
            start = self.clock()
            epoch()
            self.seconds[name].append(self.clock() - start)


def measure(sequences: int, bidirectional: bool, rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    cfg, data, task = build(sequences, bidirectional, rounds + 1)
    total = 10 * rounds * (sequences // data.batch_size + 1)
    index = torch.arange(sequences)
    with torch.no_grad():
        rendered = [data.batch("train", part).input for part in index.split(500)]
        stored = torch.cat([(part * 255).round().to(torch.uint8) for part in rendered])
        kept = torch.cat([task.network.eval().encode(part) for part in rendered])
    del rendered
    ways: dict[str, Callable[[CNNLSTM, Tensor], Tensor]] = {
        "loop, stored frames": lambda network, rows: network.encode(stored[rows].float() / 255),
        "loop, drawn frames": lambda network, rows: network.encode(data.batch("train", rows).input),
        "loop, kept": lambda network, rows: kept[rows],
    }
    others = {name: loop(data, build(sequences, bidirectional, 1)[2], total, way) for name, way in ways.items()}
    turns = InTurns(others, clock)
    with tempfile.TemporaryDirectory() as out:
        trainer = make_trainer(cfg, Path(out))
        trainer.callbacks.append(turns)
        trainer.fit(task, data)
    return {name: seconds[1:] for name, seconds in turns.seconds.items()}  # the first round warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sequences", type=int, default=20_000, help="at most 12,980 with the bundled digits are distinct"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1 if options.cpu_time else options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    for bidirectional in (False, True):
        seconds = measure(options.sequences, bidirectional, options.rounds, clock)
        print(f"\n{'two' if bidirectional else 'one'}-directional, {options.sequences:,} sequences, batch 256")
        print(f"{'':22}{'sequences/s':>12}{'x stored frames':>17}{'time x kept':>13}")
        for name, times in seconds.items():
            speed = options.sequences / statistics.median(times)
            gain = statistics.median(a / b for a, b in zip(seconds["loop, stored frames"], times, strict=True))
            cost = statistics.median(a / b for a, b in zip(times, seconds["loop, kept"], strict=True))
            print(f"{name:22}{speed:12,.0f}{gain:17.2f}{cost:13.2f}")


if __name__ == "__main__":
    main()
