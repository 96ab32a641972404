"""Images to restore: blurred in, clean out. Without blur, plain images to reconstruct or classify (R3, R4)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from healing_mnist.batch import Batch
from healing_mnist.checks import Fraction, NonNegative, Positive, UserError
from healing_mnist.data import sources, splits
from healing_mnist.data.base import RenderedData, Rows


class Restoration(RenderedData):
    """The images of a source; the input is blurred on the device, the target is clean.

    Args:
        source: a base-image source (`data/sources`).
        root: folder with the source's files; None fetches them once.
        cache: folder fetched files go to.
        blur: makes the input (B, C, H, W) from the clean images; None takes those themselves.
        limit: use only so many of the source's training images, chosen by `seed`, before they are split.
        val_fraction: share of the training images kept for validation.
        fold, folds: cross-validation, see `splits.split`.
        **options: see `RenderedData`.

    Raises:
        UserError: impossible settings.
    """

    def __init__(
        self,
        source: str = "cifar10",
        root: str | None = None,
        cache: str = "~/.cache/healing_mnist",
        blur: Callable[[Tensor], Tensor] | None = None,
        limit: Positive | None = None,
        val_fraction: Fraction = 0.2,
        fold: NonNegative | None = None,
        folds: Positive | None = None,
        **options,
    ):
        super().__init__(**options)
        splits.check_split(val_fraction, fold, folds)
        self.source, self.root, self.cache = source, root, cache
        self.blur = blur
        self.limit, self.val_fraction, self.fold, self.folds = limit, val_fraction, fold, folds

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return sources.image_shape(self.source)

    @property
    def num_classes(self) -> int:
        return sources.num_classes(self.source)

    @property
    def class_names(self) -> list[str]:
        return sources.class_names(self.source)

    def load(self) -> Tensor:
        base = sources.load(self.source, self.root, self.cache)
        train, test = len(base.train_images), len(base.test_images)
        if self.limit is not None and self.limit > train:
            raise UserError(f"data.limit={self.limit}: {self.source} has {train} training images")
        used = torch.randperm(train, generator=torch.Generator().manual_seed(self.seed))[: self.limit]
        train_part, val_part = splits.split(len(used), self.val_fraction, self.fold, self.folds, self.seed)
        self._members = {"train": used[train_part], "val": used[val_part], "test": torch.arange(train, train + test)}
        self._labels = torch.cat([base.train_labels, base.test_labels])
        return torch.cat([base.train_images, base.test_images])

    def draw(self, split: str, generator: torch.Generator) -> Rows:
        image = self._members[split]
        return {"image": image, "label": self._labels[image]}

    def render(self, rows: Rows, images: Tensor) -> Batch:
        clean = images[rows["image"]].float().div_(255)
        return Batch(self.blur(clean) if self.blur else clean, clean, rows["label"], rows["index"])
