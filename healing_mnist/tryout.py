"""Whether data, network, task and analyses fit together: seen on two rows, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from healing_mnist.batch import Batch, Output
from healing_mnist.checks import UserError, told

ROUNDING = 1e-3  # of pixels, beyond [0, 1]

# What a task or an analysis may ask for in its `needs`: of the network's output, or of the data.
OF_OUTPUT = {"image": "images", "logits": "logits", "embedding": "embeddings"}
OF_DATA = {
    "single images": lambda data, batch: batch.target.ndim == 4,
    "sequences": lambda data, batch: batch.target.ndim == 5,
    "base images with classes": lambda data, batch: hasattr(data, "members"),
    "N6 and N3": lambda data, batch: hasattr(data, "sequence_table"),
}


def try_out(task: Any, data: L.LightningDataModule, callbacks: Iterable[L.Callback]) -> None:
    """Take two rows of `data` through `task`, both on the CPU, and ask the callbacks whether they can draw the result.

    Raises:
        UserError: the parts do not fit, with the place where that showed.
    """
    with naming(data=data):
        data.setup()
        split = data.test_splits[0]
        batch = data.batch(split, torch.arange(min(2, len(data.tables[split]["index"]))))
        check_batch(batch, data)
    check_needs(task, "task", "learns from", data, batch)
    check_data([task], data)
    network = type(task.network).__name__
    training = task.training
    try:
        with torch.no_grad(), naming(model=task.network, task=task, data=data):
            output = task.eval()(batch)
            check_output(output, network, batch, data.num_classes)
            check_needs(task, "task", "learns from", data, batch, output, network)
            check_losses(task, task.losses(batch, output))
            task.trainer = SimpleNamespace(datamodule=data, current_epoch=0, global_step=0)  # what scores may ask
            for final in (False, True):
                task.update_scores(task.make_scores(final), batch, output)
    finally:
        task.train(training).trainer = None
    for callback in callbacks:
        check_needs(callback, "analysis", "draws", data, batch, output, network)
        check_data([callback], data)


@contextmanager
def naming(**parts: Any) -> Iterator[None]:
    """Turn an exception into a UserError with the parts that were at work, by group, and the place where it showed."""
    try:
        yield
    except (UserError, OSError):  # files tell of themselves
        raise
    except Exception as error:
        names = ", ".join(f"{group}={type(part).__name__}" for group, part in parts.items())
        raise UserError(told(error, names + ": do not fit together" * (len(parts) > 1))) from error


def check_batch(batch: Batch, data: L.LightningDataModule) -> None:
    """Raise UserError where `data` renders something else than a `Batch` says."""
    who = f"data: {type(data).__name__}"
    if not isinstance(batch, Batch):
        raise UserError(f"{who}.render must return a Batch, not a {type(batch).__name__}")
    for name in ("input", "target"):
        frames, shape = getattr(batch, name), tuple(data.image_shape)
        if frames.ndim not in (4, 5) or frames.shape[-3:] != shape:
            raise UserError(f"{who} renders {name} {_shown(frames)}; image_shape says (B, [T,] {_listed(shape)})")
        low, high = (float(end) for end in frames.aminmax())
        if frames.dtype != torch.float32 or not (-ROUNDING <= low <= high <= 1 + ROUNDING):  # NaN is not in it
            dtype = str(frames.dtype).removeprefix("torch.")
            raise UserError(f"{who} renders {name} as {dtype} in [{low:g}, {high:g}]; must be float32 in [0, 1]")


def check_output(output: Output, network: str, batch: Batch, num_classes: int) -> None:
    """Raise UserError where a network returns something else than an `Output` for `batch`."""
    if not isinstance(output, Output):
        raise UserError(f"model: {network} must return an Output, not a {type(output).__name__}")
    if output.image is not None and output.image.shape != batch.target.shape:
        raise UserError(f"model: {network} makes images {_shown(output.image)} for targets {_shown(batch.target)}")
    logits = output.logits
    if logits is not None and (logits.ndim != 2 or len(logits) != len(batch) or logits.shape[1] < num_classes):
        allowed = f"({len(batch)}, {num_classes}): one for each of the data's classes"
        raise UserError(f"model: {network} makes logits {_shown(logits)}; must be {allowed}")
    if output.embedding is not None and (output.embedding.ndim != 2 or len(output.embedding) != len(batch)):
        raise UserError(f"model: {network} makes embeddings {_shown(output.embedding)}; must be ({len(batch)}, d)")


def check_losses(task: Any, losses: dict[str, Tensor]) -> None:
    """Raise UserError where a task's losses are no finite scalars by the names of its `loss_names`."""
    who = f"task: {type(task).__name__}.losses"
    if not (isinstance(losses, dict) and {"loss", *task.loss_names} <= losses.keys()):
        raise UserError(f"{who} must return a dictionary with {', '.join(dict.fromkeys(('loss', *task.loss_names)))}")
    for name, value in losses.items():
        if not isinstance(value, Tensor) or value.ndim:
            what = _shown(value) if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise UserError(f"{who}: {name} is {what}; must be a tensor without dimensions")
    if not losses["loss"].isfinite():
        raise UserError(f"{who}: loss is {float(losses['loss'])} on the first two rows")


def _shown(tensor: Tensor) -> str:
    return f"({_listed(tensor.shape)})"


def _listed(shape: Iterable[int]) -> str:
    return ", ".join(map(str, shape))


def check_data(parts: Iterable[Any], data: L.LightningDataModule) -> None:
    """Ask a task or callbacks whether they can use `data`, set up, which computes nothing. Raises UserError."""
    for part in parts:
        if hasattr(part, "check_data"):
            part.check_data(data)


def check_limits(trainer: L.Trainer, data: L.LightningDataModule, *splits: Literal["train", "val", "test"]) -> None:
    """Raise UserError where a share of a split's batches is none at all."""
    data.setup()
    for split in splits:
        limit, loaders = getattr(trainer, f"limit_{split}_batches"), getattr(data, f"{split}_dataloader")()
        for loader in loaders if isinstance(loaders, list) else [loaders]:
            if isinstance(limit, float) and 0 < limit < 1 and not int(limit * len(loader)):
                raise UserError(
                    f"trainer.limit_{split}_batches={limit}: of {len(loader)} batches that leaves none; "
                    "say a whole number of batches, or a larger share"
                )


def check_needs(
    part: Any,
    group: str,
    does: str,
    data: L.LightningDataModule,
    batch: Batch,
    output: Output | None = None,
    network: str = "",
) -> None:
    """Raise UserError where a task cannot learn from, or an analysis not draw, this data or what a network makes of it.

    Args:
        part: the task or analysis; `group` and `does` say in the message what it is and what it does with its `needs`.
        output: of `network` for `batch`; None where there is no network.
    """
    for need in getattr(part, "needs", ()):
        who = f"{group}: {type(part).__name__} {does}"
        if need in OF_DATA and not OF_DATA[need](data, batch):
            raise UserError(f"{who} {need}, {type(data).__name__} has none")
        if need in OF_OUTPUT and output is not None and getattr(output, need) is None:
            raise UserError(f"{who} {OF_OUTPUT[need]}, {network} makes none")
