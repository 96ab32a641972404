"""Metrics of images and of classes, the same for every task."""

from __future__ import annotations

from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanMetric, MeanSquaredError, Metric
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.image import PeakSignalNoiseRatio

from healing_mnist.tasks.losses import ssim


class StructuralSimilarity(MeanMetric):
    """Structural similarity of images (B, C, H, W) in [0, 1], in [-1, 1]; see `losses.ssim`."""

    def update(self, prediction: Tensor, target: Tensor) -> None:
        super().update(1 - ssim(prediction, target), weight=len(prediction))


def image_scores(final: bool) -> dict[str, Metric]:
    """MSE and MAE per pixel on [0, 1]; PSNR (dB) and SSIM too when `final`."""
    scores: dict[str, Metric] = {"mse": MeanSquaredError(), "mae": MeanAbsoluteError()}
    if final:
        scores |= {
            "psnr": PeakSignalNoiseRatio(data_range=1.0),
            "ssim": StructuralSimilarity(),
        }
    return scores


def class_scores(num_classes: int) -> dict[str, Metric]:
    """Share of right answers."""
    return {"accuracy": MulticlassAccuracy(num_classes, average="micro")}
