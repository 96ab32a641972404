"""Whether data, network, task and analyses fit together: seen on two rows, before anything is trained."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch

from healing_mnist.batch import Batch, Output
from healing_mnist.checks import UserError

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
    data.setup()
    split = data.test_splits[0]
    batch = data.batch(split, torch.arange(min(2, len(data.tables[split]["index"]))))
    training = task.training
    check_needs(task, "task", "learns from", data, batch)
    check_data([task], data)
    try:
        with torch.no_grad():
            output = task.eval()(batch)
            check_needs(task, "task", "learns from", data, batch, output, type(task.network).__name__)
            task.losses(batch, output)
    except UserError:
        raise
    except Exception as error:
        parts = {"model": task.network, "task": task, "data": data}
        names = ", ".join(f"{key}={type(part).__name__}" for key, part in parts.items())
        frames = traceback.extract_tb(error.__traceback__)
        place = [frame for frame in frames if "site-packages" not in frame.filename][-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        raise UserError(f"{names}: do not fit together: {type(error).__name__}: {error} ({where})") from error
    finally:
        task.train(training)
    for callback in callbacks:
        check_needs(callback, "analysis", "draws", data, batch, output, type(task.network).__name__)
        check_data([callback], data)


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
