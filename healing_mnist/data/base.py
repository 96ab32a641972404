"""The DataModule under every data set: the loader hands out row numbers, rendering happens on the device."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from healing_mnist.batch import Batch
from healing_mnist.checks import Fraction, NonNegative, Positive, UserError
from healing_mnist.data import sources, splits

Rows = dict[str, Tensor]  # a table: column name -> (rows, ...) tensor on the CPU; "image" indexes the base images


class RenderedData(L.LightningDataModule):
    """Base images plus one table of rows per split, and how to render rows.

    A subclass gives `image_shape`, `num_classes`, `load` and `draw`, and `render`; it may name other test splits, each
    of which is scored by itself (metrics then read ``test/<split>/mse``).

    Args:
        batch_size: rows a training step.
        eval_batch_size: rows a validation or test step.
        seed: seeds the split of the base images, the tables and the order of the training rows.
        resample: draw new training rows every epoch.
    """

    test_splits: tuple[str, ...] = ("test",)

    dealt_by: tuple[str, ...] = ()  # settings that decide what is for testing

    def __init__(
        self, batch_size: Positive = 128, eval_batch_size: Positive = 500, seed: NonNegative = 0, resample: bool = False
    ):
        super().__init__()
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.seed, self.resample = seed, resample
        self.images: Tensor | None = None  # (N, C, H, W) uint8, all splits together
        self.tables: dict[str, Rows] = {}
        self._epoch = 0
        self._resident: dict[tuple[str, torch.device], Tensor | Rows] = {}

    @property
    def whole_splits(self) -> tuple[str, ...]:
        """Those of `test_splits` that together hold every test row once."""
        return self.test_splits

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one rendered frame, known before anything is loaded."""

    @property
    @abstractmethod
    def num_classes(self) -> int: ...

    @abstractmethod
    def load(self) -> Tensor:
        """Read the base images, (N, C, H, W) uint8, and remember what `draw` needs."""

    @abstractmethod
    def draw(self, split: str, generator: torch.Generator) -> Rows:
        """Draw the table of a split with the CPU generator given."""

    @abstractmethod
    def render(self, rows: Rows, images: Tensor) -> Batch:
        """Turn rows (columns of equal length B, on the device of `images`) into a batch.

        A pure function: it draws nothing at random, and a row's frames do not depend on the rows beside it.
        """

    def setup(self, stage: str | None = None) -> None:
        if self.images is None:
            self.images = self.load()
            for split in ("train", "val", *self.test_splits):
                self.tables[split] = self._draw(split)
        if stage == "test":  # whose callbacks look at training rows: at the same ones whatever was trained last
            self.start_epoch(0)

    def _draw(self, split: str, epoch: int = 0) -> Rows:
        # The split's name, not its position, enters the seed: adding a test split leaves the others as they were.
        digest = hashlib.blake2b(f"{self.seed}/{split}/{epoch}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        rows = self.draw(split, generator)
        self._check_table(split, rows)
        rows["index"] = torch.arange(len(next(iter(rows.values()))))
        return rows

    def _check_table(self, split: str, rows: Rows) -> None:
        who = f"data: {type(self).__name__}.draw('{split}')"
        if not (
            isinstance(rows, dict)
            and rows
            and all(isinstance(column, Tensor) and column.ndim for column in rows.values())
        ):
            raise UserError(f"{who} must return a table: column name -> tensor")
        lengths = {name: len(column) for name, column in rows.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise UserError(f"{who}: columns of unequal length: {listed}")
        if split != "val" and not all(lengths.values()):
            raise UserError(f"{who}: no rows")

    def start_epoch(self, epoch: int) -> None:
        """Draw the training rows of this epoch when `resample` is on; the task calls it before each epoch.

        Where a trainer overfits to a few batches they stay the same.
        """
        if self.resample and epoch != self._epoch and not (self.trainer and self.trainer.overfit_batches):
            self._epoch = epoch
            self.tables["train"] = self._draw("train", epoch)
            self._resident = {key: value for key, value in self._resident.items() if key[0] != "train"}

    def batch(self, split: str, index: Tensor) -> Batch:
        """Render rows `index` (B,) of a split on the device of `index`."""
        device = index.device
        images = self._on(device, "images", self.images)
        table = self._on(device, split, self.tables[split])
        return self.render({name: column.index_select(0, index) for name, column in table.items()}, images)

    def _on(self, device: torch.device, name: str, value: Tensor | Rows) -> Tensor | Rows:
        """`value` moved to `device` once and kept there."""
        key = (name, device)
        if key not in self._resident:
            moved = {k: v.to(device) for k, v in value.items()} if isinstance(value, dict) else value.to(device)
            self._resident[key] = moved
        return self._resident[key]

    def _loader(self, split: str, batch_size: int, shuffle: bool = False) -> DataLoader:
        trainer = self.trainer
        world, rank = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        rows = range(len(self.tables[split]["index"]))
        if world > 1 and not shuffle:
            rows, batch_size = shares(len(rows), batch_size, world), None
        # Also with one process: the order follows from seed and epoch alone, so a resumed run sees the same batches.
        sampler = DistributedSampler(rows, num_replicas=world, rank=rank, shuffle=shuffle, seed=self.seed)
        # A loader draws a seed for workers it does not have; from a generator of its own, or dropout would depend on
        # how often a run was resumed.
        spare = torch.Generator()
        return DataLoader(rows, batch_size=batch_size, sampler=sampler, collate_fn=torch.as_tensor, generator=spare)

    def train_dataloader(self) -> DataLoader:
        return self._loader("train", self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader("val", self.eval_batch_size)

    def test_dataloader(self) -> list[DataLoader]:
        return [self._loader(split, self.eval_batch_size) for split in self.test_splits]

    def on_after_batch_transfer(self, index: Tensor, dataloader_idx: int) -> Batch:
        return self.batch(self.split_of(dataloader_idx), index)

    def split_of(self, dataloader_idx: int) -> str:
        """Which split the trainer is reading now."""
        if self.trainer.training:
            return "train"
        return "val" if self.trainer.validating or self.trainer.sanity_checking else self.test_splits[dataloader_idx]


def shares(count: int, batch_size: int, processes: int) -> list[Tensor]:
    """Rows 0 to `count` in batches of at most `batch_size`, as many for each process, every row counting alike.

    Under ddp all processes take the same number of steps, and a sampler of rows would repeat some for that. Here
    batches are smaller instead; where there are fewer rows than processes, all of them see all. A `batch_size` of 1 may
    become 2.
    """
    rows = torch.arange(count)
    if count < processes:
        return [rows] * processes * (count > 0)
    steps = min(math.ceil(count / (batch_size * processes)), count // processes)
    return list(rows.tensor_split(steps * processes))


class SourceData(RenderedData):
    """`RenderedData` over the images of a source, split by base image: `draw` finds those of a split in `members`.

    Args:
        source: a base-image source (`data/sources`).
        root: folder with the source's files; None: they are fetched once.
        cache: folder for fetched files.
        limit: use only so many of the source's training images, chosen by `seed`; None: all.
        val_fraction: share of the training images kept for validation.
        fold, folds: validate on part `fold` (from 0) of `folds` instead; see `splits.split`.
        **loading: `batch_size`, `eval_batch_size`, `seed` and `resample` of `RenderedData`.

    Raises:
        UserError: an unknown source, or settings that no number of images satisfies; in `load`, too few images.
    """

    members: dict[str, Tensor]  # split -> (n,) int64, its places in `images`
    labels: Tensor  # (N,) int64, the class of each of `images`

    def __init__(
        self,
        source: str = "digits",
        root: str | None = None,
        cache: str = "~/.cache/healing_mnist",
        limit: Positive | None = None,
        val_fraction: Fraction = 0.1,
        fold: NonNegative | None = None,
        folds: Positive | None = None,
        **loading,
    ):
        super().__init__(**loading)
        splits.check_split(val_fraction, fold, folds)
        self.source, self.root, self.cache, self.limit = source, root, cache, limit
        self.val_fraction, self.fold, self.folds = val_fraction, fold, folds
        sources.check_root(root)

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
        count, test_count = len(base.train_images), len(base.test_images)
        if self.limit is not None and self.limit > count:
            raise UserError(f"data.limit={self.limit}: at most {count}, {self.source} has no more training images")
        used = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed))[: self.limit].sort().values
        train, val = splits.split(len(used), self.val_fraction, self.fold, self.folds, self.seed)
        self.members = {"train": used[train], "val": used[val], "test": count + torch.arange(test_count)}
        self.labels = torch.cat((base.train_labels, base.test_labels))
        return torch.cat((base.train_images, base.test_images))
