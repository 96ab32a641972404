"""Originals beside reconstructions."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from matplotlib.figure import Figure
from torch import Tensor

from healing_mnist.batch import Batch, Output
from healing_mnist.callbacks.figures import Table, image_grid, publish, show, split_prefix
from healing_mnist.checks import NonNegative, Positive


class Reconstructions(L.Callback):
    """Draw input, target and reconstruction of the first images, with the error of each.

    The input has a row of its own only where it differs from the target (blurred, corrupted).

    Args:
        count: images drawn, the first of each test split.
        every: validation epochs between two pictures in TensorBoard; 0 draws none while training.
    """

    needs = "image", "single images"

    def __init__(self, count: Positive = 10, every: NonNegative = 5):
        self.count, self.every = count, every
        self._pages: dict[int, dict[str, Tensor]] = {}

    def on_validation_batch_end(
        self, trainer: L.Trainer, task: Any, output: Output, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        due = self.every and trainer.current_epoch % self.every == 0 and not trainer.sanity_checking
        if due and batch_idx == 0 and trainer.is_global_zero:
            show(trainer, "reconstructions", draw(first(batch, output, self.count)), step=trainer.current_epoch)

    def on_test_batch_end(
        self, trainer: L.Trainer, task: Any, output: Output, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        page = self._pages.get(dataloader_idx)
        if missing := self.count - (len(page["index"]) if page else 0):
            more = first(batch, output, missing)
            self._pages[dataloader_idx] = {name: torch.cat((page[name], more[name])) for name in more} if page else more

    def on_test_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        for loader, page in self._pages.items():
            publish(trainer, split_prefix(trainer, loader) + "reconstructions", draw(page), table(page))
        self._pages = {}


def first(batch: Batch, output: Output, count: int) -> dict[str, Tensor]:
    """The first `count` images of a batch on the CPU, their row numbers and labels."""
    page = {"input": batch.input, "target": batch.target, "image": output.image, "index": batch.index}
    page["label"] = batch.label
    return {name: value[:count].detach().float().cpu() for name, value in page.items()}


def errors(page: dict[str, Tensor]) -> Tensor:
    """Mean squared error of each image, per pixel on [0, 1]."""
    return (page["image"] - page["target"]).square().flatten(1).mean(1)


def draw(page: dict[str, Tensor]) -> Figure:
    mse = [f"{value:.4f}" for value in errors(page).tolist()]
    rows, labels, captions = [page["target"], page["image"]], ["original", "reconstruction"], [[], mse]
    if not torch.equal(page["input"], page["target"]):
        rows, labels, captions = [page["input"], *rows], ["input", *labels], [[], *captions]
    title = "Reconstructions, with MSE per pixel"
    return image_grid([list(row) for row in rows], row_labels=labels, captions=captions, title=title)


def table(page: dict[str, Tensor]) -> Table:
    columns = zip(page["index"].tolist(), page["label"].tolist(), errors(page).tolist(), strict=True)
    return [{"row": int(row), "class": int(label), "mse": mse} for row, label, mse in columns]
