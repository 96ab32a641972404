"""Metrics of images and of classes, the same for every task."""

from __future__ import annotations

from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure


def image_scores(final: bool) -> dict[str, Metric]:
    """MSE and MAE per pixel on [0, 1]; PSNR (dB) and SSIM too when `final`, being slow."""
    scores: dict[str, Metric] = {"mse": MeanSquaredError(), "mae": MeanAbsoluteError()}
    if final:
        scores |= {
            "psnr": PeakSignalNoiseRatio(data_range=1.0),
            "ssim": StructuralSimilarityIndexMeasure(data_range=1.0),
        }
    return scores


def class_scores(num_classes: int) -> dict[str, Metric]:
    """Share of right answers."""
    return {"accuracy": MulticlassAccuracy(num_classes, average="micro")}
