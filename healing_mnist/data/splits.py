"""Train and validation parts of a source's training images, disjoint by base image."""

from __future__ import annotations

import torch
from torch import Tensor

from healing_mnist.checks import UserError


def check_split(val_fraction: float, fold: int | None, folds: int | None) -> None:
    """Raise UserError for settings that no number of images could satisfy."""
    if folds is None:
        if fold is not None:
            raise UserError(f"data.fold={fold}: needs data.folds, the number of folds")
        if not 0 < val_fraction < 1:
            raise UserError(f"data.val_fraction={val_fraction:g}: must be between 0 and 1, both excluded")
    elif folds < 2:
        raise UserError(f"data.folds={folds}: must be at least 2, or null for no cross-validation")
    elif fold is None or not 0 <= fold < folds:
        raise UserError(
            f"data.fold={'null' if fold is None else fold}: must be in 0..{folds - 1} for data.folds={folds}"
        )


def split(
    count: int, val_fraction: float = 0.1, fold: int | None = None, folds: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Indices of the train and the validation images among `count`, int64, sorted, disjoint and covering.

    With `folds`, validation is part `fold` (from 0) of that many; each image is in exactly one of them.

    Raises:
        UserError: impossible settings, or too few images for them.
    """
    check_split(val_fraction, fold, folds)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    if folds is None:
        start, end = 0, round(count * val_fraction)
    else:
        start, end = count * fold // folds, count * (fold + 1) // folds
    train, val = torch.cat((order[:start], order[end:])), order[start:end]
    if not len(train) or not len(val):
        given = f"data.val_fraction={val_fraction:g}" if folds is None else f"data.folds={folds}"
        raise UserError(f"{given}: leaves {len(train)} training and {len(val)} validation images of {count}")
    return train.sort().values, val.sort().values
