"""Predictions in context: whole sequences, every frame predicted from those just before it, and rolled out (R2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from matplotlib.figure import Figure
from torch import Tensor

from healing_mnist.batch import Batch
from healing_mnist.callbacks.figures import Table, image_grid, moving_grid, publish, publish_gif
from healing_mnist.checks import Positive


class Context(L.Callback):
    """Draw whole test sequences of `AutoregressiveDigits`: the truth, its frames predicted one by one, and a roll-out.

    A frame is predicted from the frames before it, as many as a window has inputs: one by one from true frames, rolled
    out from the first true frames and then from predictions. Predicted frames are outlined.
    Published as ``context_n6`` and ``context_n3``, with the MSE of every frame in the CSV, and moving, as
    ``context_n6_moving.gif`` and ``context_n3_moving.gif``.

    Args:
        sequences: of each, N6 and N3.
    """

    needs = "image", "N6 and N3"

    def __init__(self, sequences: Positive = 3):
        self.sequences = sequences

    def on_test_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule
        for split in ("n6", "n3"):
            numbers = data.sequences_of[split][: self.sequences].tolist()
            truth = torch.stack([data.whole_sequence(number) for number in numbers])
            shown = predict(task, truth.to(task.device), data.window - data.horizon)
            held_out = list(data.held_out.values()) if split == "n6" else []
            rows = table(numbers, truth, shown, held_out)
            publish(trainer, f"context_{split}", draw(split, numbers, truth, shown, held_out), rows)
            publish_gif(trainer, f"context_{split}_moving", animation(split, numbers, truth, shown))


@torch.no_grad()
def predict(task: Any, truth: Tensor, inputs: int) -> dict[str, Tensor]:
    """Frames from `inputs` on of sequences (S, T, C, H, W), each (S, T - inputs, C, H, W) on the CPU."""
    count, frames = truth.shape[:2]
    windows = torch.stack([truth[:, t : t + inputs] for t in range(frames - inputs)], 1)
    one_by_one = _next(task, windows.flatten(0, 1)).unflatten(0, (count, -1))
    rolled_out = truth[:, :inputs]
    while rolled_out.shape[1] < frames:
        rolled_out = torch.cat((rolled_out, _next(task, rolled_out[:, -inputs:])[:, None]), 1)
    return {"one by one": one_by_one.cpu(), "rolled out": rolled_out[:, inputs:].cpu()}


def _next(task: Any, frames: Tensor) -> Tensor:
    """The frame (N, C, H, W) predicted after windows (N, inputs, C, H, W)."""
    label = torch.zeros(len(frames), dtype=torch.int64, device=frames.device)
    with task.trainer.precision_plugin.forward_context():
        return task(Batch(frames, torch.zeros_like(frames[:, :1]), label, label)).image[:, 0].float()


def table(numbers: list[int], truth: Tensor, shown: dict[str, Tensor], held_out: list[int]) -> Table:
    """Error of every predicted frame, counted from 1, and of the frame before it in its place."""
    rows = []
    for name, images in [*shown.items(), ("last frame", truth[:, -1 - next(iter(shown.values())).shape[1] : -1])]:
        first = truth.shape[1] - images.shape[1]
        errors = (images - truth[:, first:]).square().flatten(2).mean(2)
        rows += [
            {"sequence": number, "frame": t, "held_out": int(t in held_out), "prediction": name, "mse": error}
            for number, own in zip(numbers, errors.tolist(), strict=True)
            for t, error in enumerate(own, start=first + 1)
        ]
    return rows


def draw(split: str, numbers: list[int], truth: Tensor, shown: dict[str, Tensor], held_out: list[int]) -> Figure:
    rows, labels, captions, marked = [], [], [], []
    for s, number in enumerate(numbers):
        rows.append(list(truth[s]))
        labels.append(f"#{number} truth")
        captions.append([])
        marked.append([False] * len(rows[-1]))
        for name, images in shown.items():
            first = truth.shape[1] - images.shape[1]
            errors = (images[s] - truth[s, first:]).square().flatten(1).mean(1).tolist()
            rows.append([*truth[s, :first], *images[s]])
            labels.append(name)
            captions.append([*[None] * first, *(f"{error:.4f}" for error in errors)])
            marked.append([t >= first for t in range(len(rows[-1]))])
    return image_grid(
        rows,
        row_labels=labels,
        column_labels=[f"{t} held out" if t in held_out else f"{t}" for t in range(1, truth.shape[1] + 1)],
        captions=captions,
        title=f"{split.upper()}: predicted frames are outlined, with MSE per pixel",
        marked=marked,
    )


def animation(split: str, numbers: list[int], truth: Tensor, shown: dict[str, Tensor]) -> Iterator[Figure]:
    """Figures of the moving sequences: the truth above, the predictions below, a column a sequence."""
    films, made = {"truth": truth}, [[math.inf] * len(truth)]
    for name, images in shown.items():
        first = truth.shape[1] - images.shape[1]
        films[name] = torch.cat((truth[:, :first], images), 1)
        made.append([first] * len(truth))
    columns = [f"#{number}" for number in numbers]
    title = f"{split.upper()}, frame {{}} of {truth.shape[1]}: predictions are outlined"
    return moving_grid([list(film) for film in films.values()], list(films), columns, title, start=1, made=made)
