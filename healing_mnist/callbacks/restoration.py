"""What a restoration has to beat, and how much detail it brings back."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from healing_mnist.batch import Batch, Output
from healing_mnist.callbacks.figures import publish_table, some_rows, split_prefix
from healing_mnist.checks import Positive

log = logging.getLogger(__name__)
ANSWERS = {"network": "the network", "input": "returning the input unchanged", "mean_image": "the mean training image"}


class RestorationBaselines(L.Callback):
    """MSE and detail of the network beside those of returning the input unchanged and of the mean training image.

    Detail is how much of the original's fine structure is in an image: the slope with which what a 3x3 mean takes from
    the image follows what it takes from the original. 1 is all, 0 none; wrong detail does not count.

    Logged as ``test/detail``, ``test/mse_input``, ``test/mse_mean_image`` and so on, and saved as baselines.csv; the
    log says so when the network's MSE is not the lowest. An input that is the target itself is no rival and left out.

    Args:
        rows: the most training images that are averaged.
    """

    needs = "image", "single images"
    logs = "detail", "detail_input", "detail_mean_image", "mse_input", "mse_mean_image"

    def __init__(self, rows: Positive = 10_000):
        self.rows = rows
        self._mean: Tensor | None = None
        self._sums: dict[int, dict[str, Tensor]] = {}

    def on_test_start(self, trainer: L.Trainer, task: Any) -> None:
        rows = some_rows(trainer, "train", self.rows, task.device)
        parts = rows.split(trainer.datamodule.eval_batch_size)
        self._mean = sum(trainer.datamodule.batch("train", index).target.sum(0) for index in parts) / len(rows)

    def on_test_batch_end(
        self, trainer: L.Trainer, task: Any, output: Output, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        answers = {"network": output.image, "input": batch.input, "mean_image": self._mean.expand_as(batch.target)}
        if batch.input is batch.target:
            del answers["input"]
        sums = self._sums.setdefault(dataloader_idx, {})
        for name, image in answers.items():
            sums[name] = sums.get(name, 0) + _sums(image.float(), batch.target)

    def on_test_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        for loader, sums in self._sums.items():
            prefix, table = task.test_prefix(loader), []
            for name, (error, pixels, shared, own) in ((name, values.tolist()) for name, values in sums.items()):
                scores = {"mse": error / pixels, "detail": shared / own if own else 0.0}
                table.append({"answer": name, **scores})
                suffix = "" if name == "network" else f"_{name}"
                task.log(f"{prefix}/detail{suffix}", scores["detail"])
                if suffix:  # the network's own is logged by the task
                    task.log(f"{prefix}/mse{suffix}", scores["mse"])
            publish_table(trainer, split_prefix(trainer, loader) + "baselines", table)
            network, *others = table
            rival = min(others, key=lambda row: row["mse"])
            if network["mse"] >= rival["mse"]:
                message = "%s/mse %.5f is not below %.5f, that of %s"
                log.warning(message, prefix, network["mse"], rival["mse"], ANSWERS[rival["answer"]])
        self._sums = {}


def _sums(image: Tensor, target: Tensor) -> Tensor:
    """(4,) float64: squared error, pixels, product of the details of both, square of the target's.

    On the CPU, because MPS knows no float64.
    """
    detail, wanted = detail_of(image), detail_of(target)
    parts = (image - target).square(), torch.ones_like(target), detail * wanted, wanted.square()
    return torch.stack([part.sum() for part in parts]).cpu().double()


def detail_of(images: Tensor) -> Tensor:
    """What a 3x3 mean takes away, (B, C, H - 2, W - 2)."""
    return images[..., 1:-1, 1:-1] - F.avg_pool2d(images, 3, stride=1)
