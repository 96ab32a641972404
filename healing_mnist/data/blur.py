"""Gaussian blur of whole batches, on whatever device they lie."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from healing_mnist.checks import NonNegativeFloat

TRUNCATE = 4.0  # the kernel ends at so many standard deviations, as SciPy's does


class GaussianBlur:
    """Images (..., H, W) convolved with a Gaussian; 0 leaves them as they are.

    Separable: one product with a band matrix along each axis, which costs less than padding and two convolutions at
    the sizes here and takes any `sigma`. Beyond the edge the image is mirrored about the middle of its last pixel
    (dcb|abcd|cba: SciPy's "mirror", OpenCV's default).

    Args:
        sigma: standard deviation in pixels.
    """

    def __init__(self, sigma: NonNegativeFloat = 1.0):
        self.sigma = float(sigma)

    def __call__(self, images: Tensor) -> Tensor:
        if self.sigma == 0:
            return images
        height, width = images.shape[-2:]
        down, across = (_matrix(size, self.sigma, images.device) for size in (height, width))
        return down @ (images @ across.t())


@cache
def _matrix(size: int, sigma: float, device: torch.device) -> Tensor:
    """(size, size): row i holds the weights with which the pixels of a line enter blurred pixel i."""
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    weights /= weights.sum()
    period = max(2 * (size - 1), 1)
    source = (torch.arange(size)[:, None] + offsets).remainder(period)
    source = torch.minimum(source, period - source) if size > 1 else torch.zeros_like(source)
    matrix = torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, source, weights.expand(size, -1).contiguous())
    return matrix.float().to(device)
