"""Predicted sequences: grids, an animation, the error by attribute, the error when part of the input is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import lightning as L
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from healing_mnist.batch import Batch, Output, valid_frames
from healing_mnist.callbacks.embeddings import check_attributes, choose
from healing_mnist.callbacks.figures import (
    Table,
    from_zero,
    image_grid,
    moving_grid,
    publish,
    publish_gif,
    show,
    split_prefix,
    styled,
    subplots,
    with_unit,
)
from healing_mnist.checks import Fraction, NonNegative, Positive
from healing_mnist.data.corruptions import hole_corners, hole_pixels, hole_side

Page = dict[str, Tensor]  # rows of sequences: input, target, image, lengths, seen, mse, index and the attributes


def page_of(batch: Batch, output: Output, task: Any) -> Page:
    """What is drawn of a batch, row by row, and tabulated beside it."""
    lengths = torch.full_like(batch.label, batch.input.shape[1]) if batch.lengths is None else batch.lengths
    images = {"input": batch.input, "target": batch.target, "image": output.image.float(), "lengths": lengths}
    images |= {"target_lengths": target_lengths(batch, task), "seen": batch.seen}
    return images | {"index": batch.index, "mse": row_errors(batch, output.image, task)} | batch.attributes


def reconstructs(task: Any) -> bool:
    """Whether the task gives the input back instead of what follows."""
    return getattr(task, "reconstructs_input", False)


def target_lengths(batch: Batch, task: Any) -> Tensor:
    """(B,) target frames of each row: all, but where the input itself is the target, as many as that has."""
    if reconstructs(task) and batch.lengths is not None:
        return batch.lengths
    return torch.full_like(batch.label, batch.target.shape[1])


def row_errors(batch: Batch, image: Tensor, task: Any) -> Tensor:
    """Mean squared error of each row (B,), per pixel on [0, 1]; of an image its channels stand where frames do."""
    errors = (image.float() - batch.target).square().flatten(2).mean(2)
    lengths = target_lengths(batch, task)
    return (errors * valid_frames(lengths, errors.shape[1])).sum(1) / lengths


class Kept:
    """The `count` rows with the highest score of all that were offered, best first, on the CPU."""

    def __init__(self, count: int):
        self.count = count
        self.score = torch.empty(0)
        self.page: Page = {}

    def offer(self, page: Page, score: Tensor) -> None:
        """Rows of a page, with a score each (B,)."""
        score, order = score.topk(min(self.count, len(score)))
        new = {name: value[order].detach().cpu() for name, value in page.items()}
        score = torch.cat((self.score, score.float().cpu()))
        best = score.argsort(descending=True, stable=True)[: self.count]
        self.page = {name: torch.cat([*([self.page[name]] if self.page else []), new[name]])[best] for name in new}
        self.score = score[best]


class SequenceGrids(L.Callback):
    """Input frames, truth, prediction and their difference, a row a sequence: the best, the worst, and random ones.

    Published as ``sequences_best``, ``sequences_worst`` and ``sequences_random``, the last also moving, as
    ``sequences_moving.gif``: the truth above, below it what the model saw and then, outlined, what it predicted.

    Args:
        count: sequences in each grid.
        every: validation epochs between two grids in TensorBoard; 0 draws none while training.
        seed: chooses the random ones.
    """

    needs = "image", "sequences"

    def __init__(self, count: Positive = 6, every: NonNegative = 4, seed: NonNegative = 0):
        self.count, self.every, self.seed = count, every, seed
        self._kept: dict[int, dict[str, Kept]] = {}

    def on_validation_batch_end(
        self, trainer: L.Trainer, task: Any, output: Output, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        due = self.every and trainer.current_epoch % self.every == 0 and not trainer.sanity_checking
        if due and batch_idx == 0 and trainer.is_global_zero:
            kept = Kept(self.count)
            kept.offer(page_of(batch, output, task), -torch.arange(len(batch), device=batch.label.device))
            figure = grid(kept.page, "First validation sequences", reconstructs(task))
            show(trainer, "sequences", figure, step=trainer.current_epoch)

    def on_test_batch_end(
        self, trainer: L.Trainer, task: Any, output: Output, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        names = ("best", "worst", "random")
        kept = self._kept.setdefault(dataloader_idx, {name: Kept(self.count) for name in names})
        page = page_of(batch, output, task)
        chance = torch.rand(len(batch), generator=torch.Generator().manual_seed(self.seed * 1_000_003 + batch_idx))
        scores = {"best": -page["mse"], "worst": page["mse"], "random": chance.to(page["mse"].device)}
        for name, score in scores.items():
            kept[name].offer(page, score)

    def on_test_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        for loader, kept in self._kept.items():
            prefix, again = split_prefix(trainer, loader), reconstructs(task)
            for name, rows in kept.items():
                title = f"{name.capitalize()} predictions{prefix and f' on {prefix[:-1]}'}, with MSE per pixel"
                publish(trainer, f"{prefix}sequences_{name}", grid(rows.page, title, again), table(rows.page))
            publish_gif(trainer, f"{prefix}sequences_moving", animation(kept["random"].page, again), seconds=0.8)
        self._kept = {}


def grid(page: Page, title: str, again: bool = False) -> Figure:
    """A row a sequence: input frames, truth, prediction, absolute difference; empty where there is no frame.

    Below each predicted frame stands its own MSE.
    With `again` the truth is the input as it was, and its frames are numbered as that's are.
    """
    rows, captions = [], []
    for i, (seen, count) in enumerate(zip(page["lengths"].tolist(), page["target_lengths"].tolist(), strict=True)):
        frames, target, image = page["input"][i], page["target"][i], page["image"][i]
        parts = [(frames[:seen], len(frames))]
        parts += [(part[:count], len(target)) for part in (target, image, (image - target).abs())]
        rows.append([place for part, room in parts for place in [*part, *[None] * (room - len(part))]])
        caption = [None if there else "missing" for there in page["seen"][i, :seen].tolist()]
        caption += [None] * (len(rows[-1]) - seen)
        errors = (image - target)[:count].square().flatten(1).mean(1).tolist()
        first = len(frames) + len(target)
        caption[first : first + count] = [f"{error:.4f}" for error in errors]
        captions.append(caption)
    steps = page["target"].shape[1]
    names = [f"input {t + 1}" if _numbered(page) else f"frame {t}" for t in range(page["input"].shape[1])]
    for name in ("truth", "prediction", "difference"):
        names += [f"{name} {step + (not again)}" for step in range(steps)] if steps > 1 else [name]
    return image_grid(rows, row_labels=labels_of(page), column_labels=names, captions=captions, title=title)


def labels_of(page: Page) -> list[str]:
    """What each row is called."""
    if _numbered(page):
        return [f"#{s}, frame {t}" for s, t in zip(page["sequence"].tolist(), page["frame"].tolist(), strict=True)]
    return [f"row {index}" for index in page["index"].tolist()]


def _numbered(page: Page) -> bool:
    """Whether the rows say which of a sequence's frames is predicted, as those of N6 and N3 do."""
    return {"sequence", "frame"} <= page.keys()


def table(page: Page) -> Table:
    """The numbers behind a grid: error and attributes of each row."""
    drawn = "input", "target", "image", "lengths", "target_lengths", "seen"
    names = [name for name in page if name not in drawn]
    return [{name: page[name][i].item() for name in names} for i in range(len(page["mse"]))]


def animation(page: Page, again: bool = False) -> Iterator[Figure]:
    """Figures of the moving sequences, a column each: the truth above what was seen and then predicted, outlined.

    With `again`, the two are the input as it was and as it came back.
    """
    above, below, made = [], [], []
    for i, (seen, count) in enumerate(zip(page["lengths"].tolist(), page["target_lengths"].tolist(), strict=True)):
        frames, target, image = page["input"][i, :seen], page["target"][i, :count], page["image"][i, :count]
        above.append(target if again else torch.cat((frames, target)))
        below.append(image if again else torch.cat((frames, image)))
        made.append(0 if again else seen)
    what = "reconstruction" if again else "prediction"
    title, never = f"Step {{}}: {what}s are outlined", [math.inf] * len(above)
    return moving_grid([above, below], ["truth", what], labels_of(page), title, made=[never, made])


class ErrorsByAttribute(L.Callback):
    """Mean squared error of the prediction for each value of each attribute, with the standard error of the mean.

    Args:
        attributes: "class" or attributes of the data; None takes all there are.
    """

    needs = "image", "sequences"

    def __init__(self, attributes: Sequence[str] | None = None):
        self.attributes = attributes
        self._rows: dict[int, list[Page]] = {}

    def check_data(self, data: L.LightningDataModule) -> None:
        """Raise UserError for attributes that the data does not have."""
        check_attributes(data, self.attributes)

    def on_test_batch_end(
        self, trainer: L.Trainer, task: Any, output: Output, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        columns = choose(batch, self.attributes) | {"mse": row_errors(batch, output.image, task)}
        self._rows.setdefault(dataloader_idx, []).append({name: value.cpu() for name, value in columns.items()})

    def on_test_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        for loader, parts in self._rows.items():
            columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            rows = error_table(columns)
            if rows:
                publish(trainer, split_prefix(trainer, loader) + "errors", draw_errors(rows), rows)
        self._rows = {}


def error_table(columns: Page) -> Table:
    """`attribute`, `value`, `count`, `mse`, `standard_error` for attributes with more than one value, at most 50."""
    rows = []
    for name, values in columns.items():
        kinds = values.unique()
        if name == "mse" or not 1 < len(kinds) <= 50:
            continue
        for kind in kinds:
            errors = columns["mse"][values == kind].double()
            rows.append({"attribute": name, "value": kind.item()} | statistics(errors))
    return rows


def statistics(errors: Tensor) -> dict[str, float]:
    """`count`, mean `mse` and its `standard_error` (NaN for a single one) of the errors of rows (N,)."""
    spread = errors.std().item() / math.sqrt(len(errors)) if len(errors) > 1 else math.nan
    return {"count": len(errors), "mse": errors.mean().item(), "standard_error": spread}


@styled
def draw_errors(rows: Table) -> Figure:
    names = list(dict.fromkeys(row["attribute"] for row in rows))
    wide = min(3, len(names))
    figure, axes = subplots(-(-len(names) // wide), wide, (3.4, 2.3), squeeze=False, sharey=True)
    for axis in axes.flat[len(names) :]:
        axis.remove()
    for axis, name in zip(axes.flat, names, strict=False):
        own = [row for row in rows if row["attribute"] == name]
        place = np.arange(len(own))
        axis.bar(place, [row["mse"] for row in own], yerr=[row["standard_error"] for row in own], capsize=2)
        axis.set_xticks(place, [f"{row['value']:g}" for row in own])
        axis.set(xlabel=with_unit(name))
        axis.grid(axis="y")
    for axis in axes[:, 0]:
        axis.set_ylabel("MSE per pixel")
    figure.suptitle("Error by attribute, with standard error of the mean", fontsize=10)
    return figure


class MissingCurves(L.Callback):
    """The error when part of the input is missing: holes in every frame, or whole frames.

    Both are added to what the data lacks already. The places are drawn from `seed` for every row and share. A missing
    frame is blank, and `Batch.observed` says that it is. Beside the network stand the task's baselines on the same
    input.

    Args:
        areas: shares of each frame blanked by a square hole.
        frames: shares of a sequence's frames that are missing, rounded down; one frame is always left.
        rows: test rows used, the first of each split.
        seed: of the places.
    """

    needs = "image", "sequences"

    def __init__(
        self,
        areas: Sequence[Fraction] = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6),
        frames: Sequence[Fraction] = (0.0, 0.2, 0.4, 0.6, 0.8),
        rows: Positive = 1000,
        seed: NonNegative = 0,
    ):
        self.shares = {"area": list(areas), "frames": list(frames)}
        self.rows, self.seed = rows, seed
        self._errors: dict[int, dict[tuple[str, float, str], list[Tensor]]] = {}
        self._seen: dict[int, int] = {}
        self._lacking = False

    def check_data(self, data: L.LightningDataModule) -> None:
        """Raise UserError for holes that cover nothing, or all of a frame."""
        for share in self.shares["area"]:
            hole_side(share, data.image_shape[1:], "analysis.missing.areas")

    def on_test_batch_end(
        self, trainer: L.Trainer, task: Any, output: Output, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        room = self.rows - self._seen.get(dataloader_idx, 0)
        if room <= 0:
            return
        self._seen[dataloader_idx] = self.rows - room + len(batch)
        self._lacking = batch.observed is not None
        errors = self._errors.setdefault(dataloader_idx, {})
        for key, damaged in self._damaged(batch, batch_idx):
            for predictor, image in predictions(trainer, task, damaged).items():
                errors.setdefault((*key, predictor), []).append(row_errors(batch, image, task)[:room].cpu())

    def _damaged(self, batch: Batch, batch_idx: int) -> Iterator[tuple[tuple[str, float], Batch]]:
        for kind, shares in self.shares.items():
            # The same places for every share: a larger hole covers the smaller one, a dropped frame stays dropped.
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + batch_idx)
            chance = torch.rand(*batch.input.shape[:2], 2, generator=generator).to(batch.input.device)
            for share in shares:
                yield (kind, share), (without_area if kind == "area" else without_frames)(batch, share, chance)

    def on_test_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        for loader, errors in self._errors.items():
            rows = []
            for (kind, share, predictor), parts in errors.items():
                found = {"count": sum(map(len, parts)), "mse": torch.cat(parts).mean().item()}
                rows.append({"missing": kind, "share": share, "predictor": predictor, **found})
            publish(trainer, split_prefix(trainer, loader) + "missing", draw_missing(rows, self._lacking), rows)
        self._errors, self._seen = {}, {}


@torch.no_grad()
def predictions(trainer: L.Trainer, task: Any, batch: Batch) -> dict[str, Tensor]:
    """What the network makes of a batch, by the name `network`, and what the task's baselines do."""
    with trainer.precision_plugin.forward_context():
        images = {"network": task(batch).image}
    return images | {name: task.baseline(name, batch) for name in task.baseline_names()}


def without_area(batch: Batch, share: float, place: Tensor) -> Batch:
    """A square hole of `share` of the area in each input frame; `place` (B, T, 2) in [0, 1) runs from edge to edge."""
    size = batch.input.shape[-2:]
    side = hole_side(share, size, "analysis.missing.areas")
    hole = hole_pixels(hole_corners(place, side, size), side, size)
    return replace(batch, input=batch.input.masked_fill(hole.unsqueeze(2), 0))


def without_frames(batch: Batch, share: float, chance: Tensor) -> Batch:
    """A share of the frames that are there missing, rounded down, one left; those with the lowest `chance`."""
    seen = batch.seen
    order = chance[..., 0].masked_fill(~seen, torch.inf).argsort(1).argsort(1)
    there = seen.sum(1)
    drop = torch.minimum((there * share + 1e-6).floor(), there - 1)
    observed = seen & (order >= drop[:, None])
    return replace(batch, input=batch.input * observed[..., None, None, None], observed=observed)


@styled
def draw_missing(rows: Table, lacking: bool = False) -> Figure:
    """A panel for holes and one for frames; `lacking` says that some frames are not there to begin with."""
    figure, axes = subplots(1, 2, (3.4, 2.6), sharey=True)
    frames = "share missing of the frames there are" if lacking else "share of the frames missing"
    labels = {"area": "share of each frame blank", "frames": frames}
    predictors = dict.fromkeys(row["predictor"] for row in rows)
    for axis, (kind, label) in zip(axes, labels.items(), strict=True):
        for predictor in predictors:
            own = [row for row in rows if (row["missing"], row["predictor"]) == (kind, predictor)]
            axis.plot([row["share"] for row in own], [row["mse"] for row in own], **_style(predictor))
        axis.set(xlabel=label)
        axis.grid()
    axes[0].set(ylabel="MSE per pixel")
    if len(predictors) > 1:
        axes[0].legend()
    from_zero(axes)
    figure.suptitle("Error when part of the input is missing", fontsize=10)
    return figure


def _style(predictor: str) -> dict[str, Any]:
    """How its curve is drawn: the network's with markers, of what needs no learning thin, each name in its own grey."""
    if predictor == "network":
        return {"marker": "o", "label": predictor}
    grey = {"last": "0.7", "mean": "0.5", "oracle": "0.3"}.get(predictor, "0.6")
    return {"color": grey, "linewidth": 0.8, "label": f"baseline: {predictor}", "zorder": 1}
