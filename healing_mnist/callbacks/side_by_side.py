"""What several networks make of the same images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from matplotlib.figure import Figure

from healing_mnist.callbacks.figures import Table, image_grid


@torch.no_grad()
def side_by_side(
    tasks: Mapping[str, Any], data: L.LightningDataModule, count: int = 10, split: str = "test"
) -> tuple[Figure, Table]:
    """Input, original and the reconstruction of each task in rows, for the first `count` images of a split.

    Args:
        tasks: name of the run -> its task, in evaluation mode; each returns `Output.image`.
        data: a data set of images, set up; every task is shown its batches.

    Returns:
        The figure, and one row an image: its row number, class and the MSE per pixel of the input and of each run.
    """
    device = next(iter(tasks.values())).device
    batch = data.batch(split, torch.arange(min(count, len(data.tables[split]["index"])), device=device))
    images = {"input": batch.input, **{name: task(batch).image for name, task in tasks.items()}}
    if torch.equal(batch.input, batch.target):
        del images["input"]
    errors = {name: (image - batch.target).square().flatten(1).mean(1).tolist() for name, image in images.items()}
    captions = [[], *([f"{error:.4f}" for error in errors[name]] for name in images)]
    rows = [list(row) for row in (batch.target, *images.values())]
    title = "Restorations, with MSE per pixel"
    figure = image_grid(rows, ["original", *images], captions=captions, title=title)
    places = zip(batch.index.tolist(), batch.label.tolist(), strict=True)
    table = [
        {"row": row, "class": label, **{f"mse {name}": errors[name][i] for name in errors}}
        for i, (row, label) in enumerate(places)
    ]
    return figure, table
