"""The embedding in two dimensions, coloured by what is known of each image or sequence."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from healing_mnist.batch import Batch, Output
from healing_mnist.callbacks.figures import boards, class_names, publish, scatter, split_prefix, styled, subplots
from healing_mnist.checks import NonNegative, Positive, PositiveFloat, UserError, suggestion

log = logging.getLogger(__name__)
WIDEST = 128  # numbers of an embedding that are drawn; longer ones are first reduced to so many principal components


@dataclass
class Sample:
    """Embeddings and attributes of some rows."""

    embedding: list[Tensor] = field(default_factory=list)
    attributes: list[dict[str, Tensor]] = field(default_factory=list)
    count: int = 0

    def add(self, batch: Batch, output: Output, names: Sequence[str] | None, limit: int) -> int:
        """Keep the first rows of a batch, `limit` of all batches together; returns how many there was room for."""
        room = limit - self.count
        if room > 0:
            self.embedding.append(output.embedding[:room].float().cpu())
            chosen = choose(batch, names)
            self.attributes.append({name: value[:room].cpu() for name, value in chosen.items()})
            self.count += len(self.embedding[-1])
        return max(0, room)

    def features(self) -> np.ndarray:
        """The embeddings of all rows, (rows, d)."""
        return torch.cat(self.embedding).numpy()

    def column(self, name: str) -> np.ndarray:
        """An attribute of all rows, (rows,)."""
        return torch.cat([part[name] for part in self.attributes]).numpy()


@dataclass
class Points(Sample):
    """A sample with pictures of what it is of."""

    thumbnails: list[Tensor] = field(default_factory=list)


class Embeddings(L.Callback):
    """t-SNE of the embeddings of each test split, and TensorBoard's projector with pictures and attributes.

    Args:
        points: embeddings drawn, the first of each split.
        attributes: what to colour by, one panel each: "class" or attributes of the data; None takes all there are.
        perplexity: of t-SNE, lowered for few points.
        seed: of t-SNE.
    """

    needs = ("embedding",)

    def __init__(
        self,
        points: Positive = 1000,
        attributes: Sequence[str] | None = None,
        perplexity: PositiveFloat = 30.0,
        seed: NonNegative = 0,
    ):
        self.points, self.attributes = points, attributes
        self.perplexity, self.seed = perplexity, seed
        self._kept: dict[int, Points] = {}

    def check_data(self, data: L.LightningDataModule) -> None:
        """Raise UserError for attributes that the data does not have."""
        check_attributes(data, self.attributes)

    def on_test_batch_end(
        self, trainer: L.Trainer, task: Any, output: Output, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        kept = self._kept.setdefault(dataloader_idx, Points())
        if room := kept.add(batch, output, self.attributes, self.points):
            pictures = batch.input if batch.input.ndim == 4 else batch.last
            kept.thumbnails.append(pictures[:room].cpu())

    def on_test_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        if trainer.is_global_zero:
            for loader, kept in self._kept.items():
                self._publish(trainer, split_prefix(trainer, loader) + "embedding", kept)
        self._kept = {}

    def _publish(self, trainer: L.Trainer, name: str, kept: Points) -> None:
        embedding = narrow(torch.cat(kept.embedding))
        columns = {key: kept.column(key) for key in kept.attributes[0]}
        plane = project(embedding.numpy(), self.perplexity, self.seed)
        table = [
            {"x": float(x), "y": float(y), **{key: column[i].item() for key, column in columns.items()}}
            for i, (x, y) in enumerate(plane)
        ]
        several = {key: column for key, column in columns.items() if len(np.unique(column)) > 1} or columns
        publish(trainer, name, draw(plane, several, class_names(trainer), embedding.shape[1] > 2), table)
        for board in boards(trainer):
            metadata = [[column[i].item() for column in columns.values()] for i in range(len(embedding))]
            board.add_embedding(
                embedding,
                metadata=metadata if len(columns) > 1 else [row[0] for row in metadata],
                metadata_header=list(columns) if len(columns) > 1 else None,
                label_img=torch.cat(kept.thumbnails),
                global_step=trainer.global_step,
                tag=name,
            )


def choose(batch: Batch, names: Sequence[str] | None) -> dict[str, Tensor]:
    """The attributes asked for, "class" being the label.

    Raises:
        UserError: for an attribute that the data does not have.
    """
    known = {"class": batch.label, **batch.attributes}
    for name in names or ():
        if name not in known:
            allowed = ", ".join(known)
            raise UserError(f"analysis: attributes={name}: must be one of {allowed}{suggestion(name, list(known))}")
    if names is None:  # all, but not the class under another name
        return {name: value for name, value in known.items() if name != "digit"}
    return {name: known[name] for name in names}


def check_attributes(data: L.LightningDataModule, names: Sequence[str] | None) -> None:
    """Raise UserError for attributes that `data`, which is set up, does not have."""
    if names:
        choose(data.batch(data.test_splits[0], torch.zeros(1, dtype=torch.int64)), names)


def narrow(embedding: Tensor) -> Tensor:
    """(N, d) to (N, at most `WIDEST`): t-SNE slows with d, and the projector's text file grows with it."""
    if embedding.shape[1] <= WIDEST:
        return embedding
    from sklearn.decomposition import PCA

    components = PCA(min(WIDEST, len(embedding)), random_state=0).fit_transform(embedding.numpy())
    return torch.from_numpy(components)


def project(embedding: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """t-SNE of (N, d) to (N, 2); an embedding of at most two dimensions or fewer than four points is drawn as it is."""
    if embedding.shape[1] <= 2 or len(embedding) < 4:
        return np.pad(embedding, ((0, 0), (0, 2)))[:, :2]
    if np.ptp(embedding, axis=0).max() <= 1e-6 * np.abs(embedding).max():  # t-SNE divides by their spread
        log.warning("all %d embeddings are the same", len(embedding))
        return np.zeros((len(embedding), 2), embedding.dtype)
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(perplexity, (len(embedding) - 1) / 3)
    # Its steps are short: threads that wait for each other cost more than they bring, seven times so on busy cores.
    with threadpool_limits(1):
        return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(embedding)


@styled
def draw(plane: np.ndarray, columns: dict[str, np.ndarray], names: Sequence[str], reduced: bool = True) -> Any:
    wide = 2 if len(columns) == 4 else min(3, len(columns))
    figure, axes = subplots(-(-len(columns) // wide), wide, (4.2, 3.6), squeeze=False)
    for axis in axes.flat[len(columns) :]:
        axis.remove()
    for axis, (key, values) in zip(axes.flat, columns.items(), strict=False):
        scatter(axis, plane, values, key, names if key == "class" else None)
    figure.suptitle(f"{'t-SNE of ' * reduced}{len(plane)} embeddings", fontsize=10)
    return figure
