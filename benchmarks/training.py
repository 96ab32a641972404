"""An epoch of the joint autoencoder on MNIST: through train.py's machinery, a bare loop, and Lightning's defaults.

    python benchmarks/training.py --root FOLDER_WITH_MNIST [--rounds 10] [--images 60000]

The three take turns; the table shows each in the best of its rounds, which the rest of the machine slows least, and the
median. Targets: at most 1.05 times the bare loop, at least 1.35 times faster than the defaults.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from healing_mnist.build import build_data, build_task, make_trainer
from healing_mnist.config import compose, folder
from healing_mnist.networks.autoencoder import JointAutoencoder


def joint_loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    output = network(images)
    return 0.95 * F.mse_loss(output.image, images) + 0.05 * F.cross_entropy(output.logits, labels)


class Clock(Callback):
    """Seconds of each training epoch, from its start to the end of its last batch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, *_) -> None:
        if trainer.is_last_batch:
            self.seconds.append(time.perf_counter() - self._start)


def settings(root: str, images: int, batch_size: int) -> list[str]:
    data = ["data.source=mnist", f"data.root={root}", f"data.limit={images}", f"data.batch_size={batch_size}"]
    return ["experiment=joint", *data]


def through_train_py(overrides: list[str]) -> Callable[[], float]:
    def epoch() -> float:
        with tempfile.TemporaryDirectory() as out:
            cfg = compose(
                [
                    *overrides,
                    "trainer=cpu",
                    "trainer.max_epochs=1",
                    "trainer.limit_val_batches=1",
                    "analysis=none",
                    f"output_dir={out}",
                ]
            )
            trainer = make_trainer(cfg, folder(cfg))
            clock = Clock()
            trainer.callbacks.append(clock)
            trainer.fit(build_task(cfg), data)
            return clock.seconds[0]

    data = build_data(compose(overrides))
    data.setup()
    return epoch


def bare_loop(images: Tensor, labels: Tensor, batch_size: int) -> Callable[[], float]:
    """The same network, batches, optimizer, schedule and memory format, and nothing else."""

    def epoch() -> float:
        network = JointAutoencoder(image_shape=(1, 28, 28)).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.003, fused=True)
        steps = -(-len(images) // batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, total_steps=steps)
        start = time.perf_counter()
        for index in torch.randperm(len(images)).split(batch_size):
            batch = images[index].float().div_(255)
            loss = joint_loss(network, batch, labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return time.perf_counter() - start

    return epoch


class Plain(L.LightningModule):
    """What a first Lightning script looks like."""

    def __init__(self) -> None:
        super().__init__()
        self.network = JointAutoencoder(image_shape=(1, 28, 28))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = joint_loss(self.network, *batch)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.003)


def lightning_defaults(images: Tensor, labels: Tensor, batch_size: int) -> Callable[[], float]:
    loader = DataLoader(TensorDataset(images.float() / 255, labels), batch_size=batch_size, shuffle=True)

    def epoch() -> float:
        with tempfile.TemporaryDirectory() as out:
            clock = Clock()
            L.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=out, callbacks=[clock]).fit(Plain(), loader)
            return clock.seconds[0]

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder with MNIST's IDX files")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args()

    overrides = settings(options.root, options.images, options.batch_size)
    through = through_train_py(overrides)
    data = build_data(compose(overrides))
    data.setup()
    rows = data.tables["train"]
    images, labels = data.images[rows["image"].long()], rows["label"].long()
    ways = {
        "through train.py": through,
        "bare loop": bare_loop(images, labels, options.batch_size),
        "Lightning's defaults": lightning_defaults(images, labels, options.batch_size),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()  # warm-up
    for _ in range(options.rounds):
        for name, way in ways.items():
            seconds[name].append(way())
    best = {name: min(values) for name, values in seconds.items()}
    ours = best["through train.py"]
    print(
        f"{len(images)} images, batch {options.batch_size}, {torch.get_num_threads()} threads, {options.rounds} rounds"
    )
    for name, values in seconds.items():
        print(
            f"{name:22} {best[name]:6.2f} s (median {statistics.median(values):.2f})"
            f"   through train.py / this = {ours / best[name]:.2f}"
        )


if __name__ == "__main__":
    main()
