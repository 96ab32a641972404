"""What an embedding knows: attributes of test images or sequences, read off by the simplest models there are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
from matplotlib.figure import Figure

from healing_mnist.batch import Batch, Output
from healing_mnist.callbacks.embeddings import Sample, check_attributes
from healing_mnist.callbacks.figures import COLORS, publish, some_rows, split_prefix, styled, subplots
from healing_mnist.checks import Positive

WIDEST = 256  # features a probe is fitted on; longer embeddings are first reduced to so many principal components
CROWD = 3000  # test rows a silhouette is computed on, at most: its time grows with their square
FEW = 20  # an attribute with at most so many values is one of classes, with more it is a quantity


class Probes(L.Callback):
    """Fit a linear model and k nearest neighbours on embeddings of training rows, score them on test rows.

    An attribute with a few values is classified (accuracy; chance is the most frequent value's share), any other is
    estimated (R^2; a constant scores 0). Logged as ``test/probe/<attribute>/linear`` and ``.../knn``. For classes there
    is also ``test/silhouette/<attribute>``, in [-1, 1]: how well the test embedding is clustered by them.

    Args:
        attributes: "class" or attributes of the data; None takes all there are.
        train_rows, test_rows: the most rows used of each split.
        neighbours: k.
    """

    needs = ("embedding",)
    logs = "probe/*/linear", "probe/*/knn", "silhouette/*"

    def __init__(
        self,
        attributes: Sequence[str] | None = None,
        train_rows: Positive = 5000,
        test_rows: Positive = 2000,
        neighbours: Positive = 15,
    ):
        self.attributes, self.neighbours = attributes, neighbours
        self.train_rows, self.test_rows = train_rows, test_rows
        self._test: dict[int, Sample] = {}

    def check_data(self, data: L.LightningDataModule) -> None:
        """Raise UserError for attributes that the data does not have."""
        check_attributes(data, self.attributes)

    def on_test_batch_end(
        self, trainer: L.Trainer, task: Any, output: Output, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._test.setdefault(dataloader_idx, Sample()).add(batch, output, self.attributes, self.test_rows)

    def on_test_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        train = self._embed_train(trainer, task)
        for loader, test in self._test.items():
            names = [name for name in test.attributes[0] if name in train.attributes[0]]
            table = score(train, test, names, self.neighbours)
            prefix = task.test_prefix(loader)
            for row in table:
                for probe in ("linear", "knn"):
                    task.log(f"{prefix}/probe/{row['attribute']}/{probe}", row[probe])
                if row["silhouette"] is not None:
                    task.log(f"{prefix}/silhouette/{row['attribute']}", row["silhouette"])
            if table:
                publish(trainer, split_prefix(trainer, loader) + "probes", draw(table), table)
        self._test = {}

    def _embed_train(self, trainer: L.Trainer, task: Any) -> Sample:
        data, sample = trainer.datamodule, Sample()
        rows = some_rows(trainer, "train", self.train_rows, task.device)
        for index in rows.split(data.eval_batch_size):
            batch = data.batch("train", index)
            with trainer.precision_plugin.forward_context():
                output = task(batch)
            sample.add(batch, output, self.attributes, self.train_rows)
        return sample


def score(train: Sample, test: Sample, names: Sequence[str], neighbours: int) -> list[dict[str, Any]]:
    """One row an attribute: what is scored, chance, and how the probes did."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted, seen = train.features(), test.features()
    narrow = [PCA(min(WIDEST, *fitted.shape), random_state=0)] if fitted.shape[1] > WIDEST else []
    scaler = make_pipeline(*narrow, StandardScaler()).fit(fitted)
    fitted, seen = scaler.transform(fitted), scaler.transform(seen)
    table = []
    for name in names:
        known, wanted = train.column(name), test.column(name)
        values, counts = np.unique(known, return_counts=True)
        if len(values) < 2:
            continue  # nothing to tell apart
        classes = len(values) <= FEW
        if classes:  # their numbers, as scikit-learn takes no 22.5 for a class
            known, wanted = _places(values, known), _places(values, wanted)
        linear, knn = _probes(classes, min(neighbours, len(known)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an optimizer out of iterations is as good as it gets here
            scores = {probe: float(model.fit(fitted, known).score(seen, wanted)) for probe, model in (linear, knn)}
        chance = float((wanted == counts.argmax()).mean()) if classes else 0.0
        scores["silhouette"] = silhouette(seen, test.column(name)) if classes else None
        table.append({"attribute": name, "score": "accuracy" if classes else "R2", "chance": chance, **scores})
    return table


def _places(values: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Where each of `column` (N,) stands in the sorted `values`, -1 for what is not there."""
    places = np.searchsorted(values, column).clip(max=len(values) - 1)
    return np.where(values[places] == column, places, -1)


def silhouette(embedding: np.ndarray, values: np.ndarray) -> float | None:
    """How well (N, d) is clustered by `values` (N,), in [-1, 1] (Rousseeuw 1987); None where all are of one cluster."""
    from sklearn.metrics import silhouette_score

    embedding, values = embedding[:CROWD], values[:CROWD]
    return float(silhouette_score(embedding, values)) if 1 < len(np.unique(values)) < len(values) else None


def _probes(classes: bool, neighbours: int) -> tuple[tuple[str, Any], tuple[str, Any]]:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    if classes:
        return ("linear", LogisticRegression(max_iter=200)), ("knn", KNeighborsClassifier(neighbours))
    return ("linear", Ridge()), ("knn", KNeighborsRegressor(neighbours))


@styled
def draw(table: Sequence[dict[str, Any]]) -> Figure:
    figure, axes = subplots(size=(1.1 * len(table) + 2.5, 3))
    places = np.arange(len(table))
    for shift, probe, color in ((-0.2, "linear", COLORS[0]), (0.2, "knn", COLORS[4])):
        bars = axes.bar(places + shift, [row[probe] for row in table], 0.38, color=color, label=probe)
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    for i, row in enumerate(table):
        axes.hlines(row["chance"], i - 0.45, i + 0.45, color=COLORS[2], label="chance" if i == 0 else None)
    axes.set_xticks(places, [f"{row['attribute']}\n({row['score'].replace('R2', 'R²')})" for row in table])
    axes.set(ylim=(min(0, *(row[p] for row in table for p in ("linear", "knn"))), 1.08), ylabel="test score")
    axes.set_title("What the embedding knows")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(axis="y")
    return figure
