"""How sure a classifier is of a few chosen images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import lightning as L
import torch
from matplotlib.figure import Figure
from torch import Tensor

from healing_mnist.batch import Batch, Output
from healing_mnist.callbacks.figures import COLORS, Table, class_names, publish, split_prefix, styled, subplots
from healing_mnist.checks import NonNegative, NotEmpty, UserError

Sample = tuple[Tensor, int, Tensor]  # input (C, H, W), label, probabilities (classes,)


class Probabilities(L.Callback):
    """Draw chosen inputs of each test split beside the probabilities of all classes.

    Args:
        rows: row numbers in the test split; of several splits, those that one does not have are left out of it.
    """

    needs = "logits", "single images"

    def __init__(self, rows: Annotated[list[NonNegative], NotEmpty()] = (0, 1, 2, 3, 4)):
        self.rows = rows
        self._samples: dict[int, dict[int, Sample]] = {}

    def check_data(self, data: L.LightningDataModule) -> None:
        """Raise UserError for rows that no test split has."""
        count = max(len(data.tables[split]["index"]) for split in data.test_splits)
        for row in self.rows:
            if row >= count:
                raise UserError(f"analysis.probabilities.rows: no row {row}; the test set has {count}, from 0")

    def on_test_batch_end(
        self, trainer: L.Trainer, task: Any, output: Output, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        samples = self._samples.setdefault(dataloader_idx, {})
        index = batch.index.cpu()
        for row in self.rows:
            for i in torch.nonzero(index == row).flatten().tolist():
                samples[row] = (batch.input[i].cpu(), int(batch.label[i]), output.logits[i].float().softmax(0).cpu())

    def on_test_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        names = class_names(trainer)
        for loader, samples in self._samples.items():
            if samples:
                ordered = {row: samples[row] for row in self.rows if row in samples}
                name = split_prefix(trainer, loader) + "probabilities"
                publish(trainer, name, draw(ordered, names), table(ordered, names))
        self._samples = {}


def table(samples: dict[int, Sample], names: Sequence[str]) -> Table:
    return [
        {"row": row, "class": names[label], **dict(zip(names, probabilities.tolist(), strict=True))}
        for row, (_, label, probabilities) in samples.items()
    ]


@styled
def draw(samples: dict[int, Sample], names: Sequence[str]) -> Figure:
    ratios = {"width_ratios": [1, 2]}
    figure, axes = subplots(len(samples), 2, (2.4, 0.15 * len(names) + 0.5), squeeze=False, gridspec_kw=ratios)
    for (picture, bars), (row, (image, label, probabilities)) in zip(axes, samples.items(), strict=True):
        picture.imshow(image.clamp(0, 1).movedim(0, -1).squeeze(-1).numpy(), vmin=0, vmax=1)
        picture.set_axis_off()
        picture.set_title(f"row {row}: {names[label]}")
        colors = [COLORS[0] if i == label else COLORS[3] for i in range(len(names))]
        bars.barh(range(len(names)), probabilities.numpy(), color=colors)
        bars.set_yticks(range(len(names)), names, fontsize=6)
        bars.invert_yaxis()
        bars.set_xlim(0, 1)
        bars.grid(axis="x")
    axes[-1, 1].set_xlabel("probability (true class in blue)")
    return figure
