"""Losses and scores over the epochs."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import lightning as L
from matplotlib.figure import Figure

from healing_mnist.callbacks.figures import COLORS, publish, styled, subplots, with_unit

Series = list[tuple[float, float]]  # (epoch, value)


class Curves(L.Callback):
    """Draw every metric of the run's metrics.csv over the epochs, training and validation in one panel."""

    def on_test_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        path = Path(trainer.default_root_dir) / "metrics.csv"
        if trainer.is_global_zero and path.is_file():
            panels = read(path)
            if panels:
                table = [
                    {"metric": f"{split}/{name}", "epoch": epoch, "value": value}
                    for name, lines in panels.items()
                    for split, series in lines.items()
                    for epoch, value in series
                ]
                publish(trainer, "curves", draw(panels), table)


def read(path: Path) -> dict[str, dict[str, Series]]:
    """metrics.csv as metric -> split -> series; empty cells are left out, and columns that are not train or val."""
    panels: dict[str, dict[str, Series]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for column, text in row.items():
                split, _, name = column.partition("/")
                if split in ("train", "val") and text and math.isfinite(float(text)):
                    panels.setdefault(name, {}).setdefault(split, []).append((float(row["epoch"]), float(text)))
    return panels


@styled
def draw(panels: dict[str, dict[str, Series]]) -> Figure:
    wide = min(3, len(panels))
    figure, axes = subplots(-(-len(panels) // wide), wide, (3.4, 2.4), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (name, lines) in zip(axes.flat, panels.items(), strict=False):
        for split, series in lines.items():
            color = COLORS[0] if split == "train" else COLORS[6]
            axis.plot(*zip(*series, strict=True), label=split, color=color, marker="." if len(series) < 20 else None)
        axis.set(ylabel=with_unit(name), xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.grid()
        axis.legend()
    return figure
