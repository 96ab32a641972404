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
    tasks: Mapping[str, Any], data: L.LightningDataModule, count: int = 10, split: str | None = None
) -> tuple[Figure, Table]:
    """Original, input and the image each task makes, in rows, for the first `count` rows of a split.

    The first split that is tested, unless another is named. Of sequences the first target frame is shown.

    Args:
        tasks: name of the run -> its task, in evaluation mode; those that make no image are left out.
        data: a data set, set up, whose targets are images; every task is shown the same batch.

    Returns:
        The figure, and one row an image: its row number, class and the MSE per pixel of the input and of each run.
    """
    split = split or data.test_splits[0]
    device = next(iter(tasks.values())).device
    batch = data.batch(split, torch.arange(min(count, len(data.tables[split]["index"])), device=device))
    made = {name: task(batch).image for name, task in tasks.items()}
    target = batch.target
    if target.ndim == 5:
        target = target[:, 0]
        made = {name: None if image is None else image[:, 0] for name, image in made.items()}
    changed = (
        batch.input.ndim == 4 and batch.input.shape == batch.target.shape and not torch.equal(batch.input, batch.target)
    )
    images = ({"input": batch.input} if changed else {}) | {k: v for k, v in made.items() if v is not None}
    errors = {name: (image - target).square().flatten(1).mean(1).tolist() for name, image in images.items()}
    captions = [[], *([f"{error:.4f}" for error in errors[name]] for name in images)]
    rows = [list(row) for row in (target, *images.values())]
    title = "What each run makes of the same images, with MSE per pixel"
    figure = image_grid(rows, ["original", *images], captions=captions, title=title)
    places = zip(batch.index.tolist(), batch.label.tolist(), strict=True)
    table = [
        {"row": row, "class": label, **{f"mse {name}": errors[name][i] for name in errors}}
        for i, (row, label) in enumerate(places)
    ]
    return figure, table
