"""Reconstruction losses: pure functions of (prediction, target), images or sequences in [0, 1], to a scalar."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from healing_mnist.checks import UserError

WINDOW = 11  # pixels
LIGHT, CONTRAST = 0.01**2, 0.03**2  # the two constants of structural similarity on [0, 1]


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
    """Binary cross-entropy per pixel of a prediction in [0, 1]; in float32, as the autocast of a GPU refuses it."""
    with torch.autocast(prediction.device.type, enabled=False):
        return F.binary_cross_entropy(prediction.float().clamp(0, 1), target.float())


def ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - structural similarity (Wang et al. 2004, Gaussian window of 11 pixels around each pixel), in [0, 2].

    What torchmetrics computes, over twenty times as fast on a CPU: along each axis all windows are one product with a
    banded matrix. In float32, as differences of squares need it.

    Raises:
        UserError: images of less than 6 pixels, half a window.
    """
    images, truth = flat_frames(prediction).float(), flat_frames(target).float()
    with torch.autocast(images.device.type, enabled=False):
        down, across = (_windows(size, images.device) for size in images.shape[-2:])
        maps = torch.stack((images, truth, images * images, truth * truth, images * truth))
        mean, mean_truth, square, square_truth, product = down @ maps @ across.T
        means = mean * mean_truth
        variances = (square - mean * mean).clamp(min=0) + (square_truth - mean_truth * mean_truth).clamp(min=0)
        likeness = (2 * means + LIGHT) * (2 * (product - means) + CONTRAST)
        return 1 - (likeness / ((mean * mean + mean_truth * mean_truth + LIGHT) * (variances + CONTRAST))).mean()


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # or what a test made first could not be trained with
def _windows(size: int, device: torch.device) -> Tensor:
    """(size, size): row i is a Gaussian (standard deviation 1.5, 11 pixels) around pixel i of a mirrored image."""
    half = WINDOW // 2
    if size <= half:
        raise UserError(
            f"SSIM, as loss or score, compares windows of {WINDOW} pixels and needs {half + 1}; "
            f"the images have {size}: make them larger (data.size where the data have it), or leave SSIM out"
        )
    weights = torch.exp(-(torch.arange(-half, half + 1, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    mirrored = F.pad(torch.eye(size, dtype=torch.float64)[None], (half, half), mode="reflect")[0]
    return (mirrored.unfold(1, WINDOW, 1) @ (weights / weights.sum())).T.float().to(device)
