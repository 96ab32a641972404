"""A training step of each CIFAR-10 model: through train.py's machinery beside a bare loop, and the blur's share of it.

    python benchmarks/cifar.py [--rounds 5] [--steps 20] [--device cpu|gpu] [EXPERIMENT ...]

The two take turns, so that a busy machine slows both; the table shows medians. Targets at batch 128: through train.py
at most 1.10 times the bare loop; rendering (uint8 to float, blur) at most a tenth of a step. Images are noise: speed
does not depend on what they show.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.nn import functional as F

from healing_mnist.build import build_data, build_task, make_trainer
from healing_mnist.config import CONF, compose
from healing_mnist.data.base import RenderedData
from healing_mnist.data.frames import to_float
from healing_mnist.data.sources import cifar10

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("cifar_*.yaml"))
RECORDS = 1000  # of each file


class Clock(Callback):
    """Seconds of the training batches, from the first one's start to the last one's end."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        wait(pl_module.device)
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        wait(pl_module.device)
        self.seconds = time.perf_counter() - self._start


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def settings(experiment: str, root: str, steps: int, device: str) -> list[str]:
    return [
        f"experiment={experiment}",
        f"data.root={root}",
        "data.blur.sigma=1.0",
        f"trainer.accelerator={device}",
        "trainer.max_epochs=1",
        f"trainer.limit_train_batches={steps}",
        "trainer.limit_val_batches=0",
        "+trainer.enable_checkpointing=false",
        "trainer.enable_progress_bar=false",
        "callbacks=default",
        "callbacks.checkpoint=null",
        "analysis=none",
    ]


def through_train_py(overrides: list[str], data: RenderedData) -> float:
    cfg = compose(overrides)
    with tempfile.TemporaryDirectory() as out:
        clock = Clock()
        trainer = make_trainer(cfg, Path(out))
        trainer.callbacks.append(clock)
        trainer.fit(build_task(cfg), data)
    return clock.seconds


def bare_loop(overrides: list[str], data: RenderedData, steps: int, device: torch.device) -> float:
    """The same network, batches, blur, optimizer and memory format, and nothing else."""
    network = build_task(compose(overrides)).network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001, fused=True)
    images, labels = data.images.to(device), data.labels.to(device)
    order = data.tables["train"]["image"][torch.randperm(len(data.tables["train"]["image"]))].to(device)
    wait(device)
    start = time.perf_counter()
    for index in order.split(data.batch_size)[:steps]:
        target = to_float(images[index])
        output = network(data.blur(target))
        if output.image is None:
            loss = F.cross_entropy(output.logits, labels[index])
        else:
            loss = F.mse_loss(output.image, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    wait(device)
    return time.perf_counter() - start


def rendering(data: RenderedData, device: torch.device) -> float:
    """Seconds of one batch."""
    index = torch.arange(data.batch_size, device=device)
    data.batch("train", index)
    wait(device)
    start = time.perf_counter()
    for _ in range(10):
        data.batch("train", index)
    wait(device)
    return (time.perf_counter() - start) / 10


def median(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median seconds of each way, all taking turns after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            seconds[name].append(way())
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def make_archive(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for name in (*cifar10.TRAIN, cifar10.TEST):
        records = torch.randint(256, (RECORDS, cifar10.RECORD), dtype=torch.uint8, generator=generator)
        records[:, 0] %= 10
        (folder / name).write_bytes(records.numpy().tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", default=EXPERIMENTS, help=f"of {', '.join(EXPERIMENTS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    device = torch.device("cuda" if options.device == "gpu" else "cpu")
    where = torch.cuda.get_device_name() if options.device == "gpu" else f"CPU, {torch.get_num_threads()} threads"
    print(f"batch 128, {where}, {options.steps} steps, {options.rounds} rounds")
    print(f"{'experiment':26} {'train.py':>12} {'bare loop':>12} {'ratio':>7} {'rendering':>10}")
    with tempfile.TemporaryDirectory() as root:
        make_archive(Path(root))
        for experiment in options.experiments:
            overrides = settings(experiment, root, options.steps, options.device)
            data = build_data(compose(overrides))
            data.setup()
            ways = {
                "train.py": lambda o=overrides, d=data: through_train_py(o, d) / options.steps,
                "bare": lambda o=overrides, d=data: bare_loop(o, d, options.steps, device) / options.steps,
                "rendering": lambda d=data: rendering(d, device),
            }
            found = median(ways, options.rounds)
            ours, bare = found["train.py"], found["bare"]
            speeds = f"{1 / ours:8.1f} 1/s {1 / bare:8.1f} 1/s"
            print(f"{experiment:26} {speeds} {ours / bare:7.2f} {found['rendering'] / ours:10.1%}", flush=True)


if __name__ == "__main__":
    main()
