"""How the error of predictions grows as the input is damaged: noise of three kinds, a missing region (R2 3.3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import lightning as L
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from healing_mnist.callbacks.figures import COLORS, Table, from_zero, publish, some_rows, styled, subplots
from healing_mnist.callbacks.sequences import predictions, row_errors, statistics
from healing_mnist.checks import Fraction, NonNegative, Positive, UserError
from healing_mnist.data import corruptions

log = logging.getLogger(__name__)

Noise = Literal["gaussian", "poisson", "salt_and_pepper"]
UNITS = {"missing_region": "side of the missing region (pixels)"}  # of the axes, where not an intensity


class Robustness(L.Callback):
    """Mean squared error over the intensity of noise and over the side of a missing region, on each of `splits`.

    Only inputs are damaged, with the same seeds at every level; the region lies at the same place in all frames of a
    row. Beside the network stand the task's baselines on the same damaged input. Published as ``robustness_<name>``
    for each damage, and ``robustness`` with all of them, whose table has the network alone.

    Args:
        noises: functions of `data.corruptions`.
        intensities: how many, evenly from 0 to `max_intensity`.
        max_intensity: the strongest noise, at most 1.
        max_side: of the missing region, in pixels; all sides from 0. None: the smaller side of the image.
        splits: test splits; None: those that together hold every test row once.
        rows: rows of each split, evenly spread.
        seed: of the noise and the places.
    """

    needs = ("image",)

    def __init__(
        self,
        noises: Sequence[Noise] = ("gaussian", "poisson", "salt_and_pepper"),
        intensities: Positive = 100,
        max_intensity: Fraction = 1.0,
        max_side: NonNegative | None = None,
        splits: Sequence[str] | None = None,
        rows: Positive = 200,
        seed: NonNegative = 0,
    ):
        self.noises = noises
        self.intensities = torch.linspace(0, max_intensity, intensities, dtype=torch.float64).tolist()
        self.max_side, self.splits, self.rows, self.seed = max_side, splits, rows, seed

    def check_data(self, data: L.LightningDataModule) -> None:
        """Raise UserError for splits that the data does not have, and a region larger than its images."""
        known, side = data.test_splits, min(data.image_shape[1:])
        unknown = set(self.splits or ()) - set(known)
        if unknown:
            raise UserError(
                f"analysis.robustness.splits: unknown {', '.join(sorted(unknown))}; allowed: {', '.join(known)}"
            )
        if self.max_side is not None and self.max_side > side:
            raise UserError(f"analysis.robustness.max_side={self.max_side}: at most {side}, the side of the image")

    def on_test_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        if not trainer.is_global_zero:
            return
        splits = self.splits or trainer.datamodule.whole_splits
        levels = sum(1 for _ in self._levels(min(trainer.datamodule.image_shape[1:])))
        log.info("robustness: %s under %d kinds and degrees of damage", " and ".join(splits), levels)
        rows = [row for split in splits for row in self._measure(trainer, task, split)]
        for name in [*self.noises, "missing_region"]:
            own = [row for row in rows if row["damage"] == name]
            publish(trainer, f"robustness_{name}", draw(own), own)
        network = [row for row in rows if row["predictor"] == "network"]
        publish(trainer, "robustness", draw_together(rows), network)

    @torch.no_grad()
    def _measure(self, trainer: L.Trainer, task: Any, split: str) -> Table:
        data, errors = trainer.datamodule, {}
        index = some_rows(trainer, split, self.rows, task.device)
        for part in index.split(data.eval_batch_size):
            batch = data.batch(split, part)
            seeds = (batch.index + self.seed * 1_000_003).to(torch.int64)
            for damage, level, corrupt in self._levels(min(data.image_shape[1:])):
                damaged = replace(batch, input=corrupt(batch.input, level, seeds))
                for predictor, image in predictions(trainer, task, damaged).items():
                    key = damage, level, predictor
                    errors.setdefault(key, []).append(row_errors(batch, image, task).cpu().double())
        return [
            {"split": split, "damage": damage, "level": level, "predictor": predictor} | statistics(torch.cat(parts))
            for (damage, level, predictor), parts in errors.items()
        ]

    def _levels(self, side: int) -> Iterator[tuple[str, float, Callable[[Tensor, Any, Tensor], Tensor]]]:
        for noise in self.noises:
            for intensity in self.intensities:
                yield noise, intensity, getattr(corruptions, noise)
        for width in range((side if self.max_side is None else self.max_side) + 1):
            yield "missing_region", width, corruptions.missing_region


def series(rows: Table, **chosen: Any) -> tuple[list[float], list[float], list[float]]:
    """Level, mean and standard error of the rows that have the values `chosen`."""
    own = [row for row in rows if all(row[key] == value for key, value in chosen.items())]
    return tuple([row[key] for row in own] for key in ("level", "mse", "standard_error"))


@styled
def draw(rows: Table) -> Figure:
    """One damage: a panel for each split, a curve for each predictor, shaded by twice the standard error."""
    splits, predictors = (list(dict.fromkeys(row[key] for row in rows)) for key in ("split", "predictor"))
    damage = rows[0]["damage"]
    figure, axes = subplots(1, len(splits), (3.6, 2.8), squeeze=False, sharey=True)
    for axis, split in zip(axes.flat, splits, strict=True):
        for color, predictor in zip(COLORS, predictors, strict=False):
            level, mean, error = series(rows, split=split, predictor=predictor)
            label = predictor if predictor == "network" else f"baseline: {predictor}"
            axis.plot(level, mean, color=color, label=label)
            bands = [[m + sign * 2 * e for m, e in zip(mean, error, strict=True)] for sign in (-1, 1)]
            axis.fill_between(level, *bands, color=color, alpha=0.2, linewidth=0)
        axis.set(title=split.upper(), xlabel=UNITS.get(damage, "intensity of the noise"))
        axis.grid()
    from_zero(axes.flat)
    axes[0, 0].set_ylabel("MSE per pixel on [0, 1]")
    axes[0, 0].legend()
    figure.suptitle(f"Error with damaged input: {damage.replace('_', ' ')}", fontsize=10)
    return figure


@styled
def draw_together(rows: Table) -> Figure:
    """Noises in one panel, the missing region in the other, in colours; splits by line style, baselines thin.

    On logarithmic axes, where little damage is as easy to see as much.
    """
    figure, axes = subplots(1, 2, (3.9, 3.8))
    splits, damages, predictors = (
        list(dict.fromkeys(r[key] for r in rows)) for key in ("split", "damage", "predictor")
    )
    for axis, own in ((axes[0], [d for d in damages if d != "missing_region"]), (axes[1], ["missing_region"])):
        for color, damage in zip(COLORS, own, strict=False):
            for style, split in zip(("-", "--", ":", "-."), splits, strict=False):
                level, mean, _ = series(rows, split=split, damage=damage, predictor="network")
                axis.plot(level, mean, style, color=color, label=f"{damage.replace('_', ' ')}, {split.upper()}")
            for style, name in zip(((0, (1, 1)), (0, (4, 2, 1, 2)), (0, (1, 3))), predictors[1:], strict=False):
                level, mean, _ = series(rows, split=splits[0], damage=damage, predictor=name)
                axis.plot(level, mean, linestyle=style, color=color, linewidth=0.9)
                if damage == own[-1]:
                    label = f"baseline: {name}, {splits[0].upper()}"
                    axis.plot([], [], linestyle=style, color="0.4", linewidth=0.9, label=label)
        axis.set_xlabel(UNITS.get(own[0], "intensity of the noise"))
        axis.set_ylabel("MSE per pixel on [0, 1]")
        if (top := axis.dataLim.y1) > 0:
            axis.set_yscale("log")
            axis.set_ylim(min(axis.get_ylim()[0], top / 2), max(axis.get_ylim()[1], top * 1.2))  # a flat line is flat
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid()
        axis.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    figure.suptitle("Error with damaged input", fontsize=10)
    return figure
