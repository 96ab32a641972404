"""Reconstruction losses: pure functions of (prediction, target), images or sequences in [0, 1], to a scalar."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure


def flat_frames(images: Tensor) -> Tensor:
    """(..., C, H, W) -> (N, C, H, W): frames of a sequence become images of a batch."""
    return images.flatten(0, -4)


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error per pixel."""
    return F.mse_loss(prediction, target)


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error per pixel."""
    return F.l1_loss(prediction, target)


def bce(prediction: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy per pixel of a prediction in [0, 1]; computed in float32, which autocast would refuse."""
    return F.binary_cross_entropy(prediction.float().clamp(0, 1), target.float())


def ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - structural similarity (Wang et al. 2004, Gaussian window of 11 pixels), in [0, 2]."""
    return 1 - structural_similarity_index_measure(flat_frames(prediction), flat_frames(target), data_range=1.0)
