"""What a classifier mixes up: confusion matrix, accuracy of each class, precision and recall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
from matplotlib.figure import Figure
from torchmetrics.classification import MulticlassConfusionMatrix

from healing_mnist.batch import Batch, Output
from healing_mnist.callbacks.figures import (
    COLORS,
    class_names,
    folder,
    publish,
    publish_table,
    split_prefix,
    styled,
    subplots,
)
from healing_mnist.files import atomic_write


class Confusion(L.Callback):
    """Confusion matrix, per-class accuracy and classification report of each test split."""

    needs = ("logits",)

    def __init__(self) -> None:
        self._matrices: dict[int, MulticlassConfusionMatrix] = {}

    def on_test_batch_end(
        self, trainer: L.Trainer, task: Any, output: Output, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if dataloader_idx not in self._matrices:
            matrix = MulticlassConfusionMatrix(trainer.datamodule.num_classes).to(batch.label.device)
            self._matrices[dataloader_idx] = matrix
        self._matrices[dataloader_idx].update(output.logits, batch.label)

    def on_test_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        names = class_names(trainer)
        for loader, metric in self._matrices.items():
            counts = metric.compute().cpu().numpy()  # on every process: it adds up what each of them saw
            prefix = split_prefix(trainer, loader)
            rows = [
                {"true": names[i], **{f"predicted {name}": int(n) for name, n in zip(names, row, strict=True)}}
                for i, row in enumerate(counts)
            ]
            publish(trainer, f"{prefix}confusion", draw_matrix(counts, names), rows)
            report = classification_report(counts, names)
            accuracy = [{"class": row["class"], "accuracy": row["recall"]} for row in report[: len(names)]]
            publish(trainer, f"{prefix}class_accuracy", draw_bars(accuracy, report[-1]["recall"]), accuracy)
            publish_table(trainer, f"{prefix}classification_report", report)
            if trainer.is_global_zero:
                atomic_write(folder(trainer) / f"{prefix}classification_report.txt", as_text(report))
        self._matrices = {}


def classification_report(counts: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support from a confusion matrix (true, predicted).

    One row a class, then "macro average" (every class weighs the same), "weighted average" (by support) and "accuracy".
    A ratio with nothing below its line is 0.
    """
    right, true, predicted = np.diag(counts).astype(float), counts.sum(1), counts.sum(0)
    precision, recall = right / np.maximum(predicted, 1), right / np.maximum(true, 1)
    f1 = 2 * right / np.maximum(true + predicted, 1)
    scores = np.stack([precision, recall, f1], axis=1)
    total = int(counts.sum())
    rows = [*zip(names, scores, true, strict=True)]
    rows.append(("macro average", scores.mean(0), total))
    rows.append(("weighted average", (scores * true[:, None]).sum(0) / max(total, 1), total))
    rows.append(("accuracy", np.full(3, right.sum() / max(total, 1)), total))
    return [
        {"class": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(support)}
        for name, (p, r, f), support in rows
    ]


def as_text(report: Sequence[dict[str, Any]]) -> str:
    width = max(len(row["class"]) for row in report)
    lines = [f"{'':{width}} {'precision':>10} {'recall':>10} {'f1':>10} {'support':>10}"]
    for row in report:
        scores = "".join(f" {row[key]:10.4f}" for key in ("precision", "recall", "f1"))
        lines.append(f"{row['class']:{width}}{scores} {row['support']:10d}")
    return "\n".join(lines) + "\n"


@styled
def draw_matrix(counts: np.ndarray, names: Sequence[str]) -> Figure:
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 0.45 * len(names) + 1.6
    figure, axes = subplots(size=(size + 0.6, size))
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(counts):
        axes.text(
            j, i, f"{count}", ha="center", va="center", fontsize=7, color="white" if share[i, j] > 0.5 else "#333"
        )
    turned = 45 if max(map(len, names)) > 2 else 0
    axes.set_xticks(range(len(names)), names, rotation=turned, ha="right" if turned else "center")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted class", ylabel="true class")
    accuracy = np.diag(counts).sum() / max(counts.sum(), 1)
    axes.set_title(f"Confusion matrix, accuracy {accuracy:.2%} of {counts.sum()}")
    figure.colorbar(picture, ax=axes, shrink=0.8, label="share of the true class")
    return figure


@styled
def draw_bars(rows: Sequence[dict[str, Any]], overall: float) -> Figure:
    figure, axes = subplots(size=(0.45 * len(rows) + 2, 3))
    names, values = [row["class"] for row in rows], [100 * row["accuracy"] for row in rows]
    bars = axes.bar(names, values, color=COLORS[0])
    axes.axhline(100 * overall, color=COLORS[2], linewidth=1, label=f"all classes {overall:.2%}")
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}  # lest the line cross a number
    axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2, bbox=behind)
    axes.set(ylim=(0, 108), xlabel="class", ylabel="accuracy (%)", title="Accuracy of each class")
    if max(map(len, names)) > 2:
        axes.tick_params(axis="x", rotation=45)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(axis="y")
    return figure
