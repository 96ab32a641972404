"""Damage to inputs: three kinds of noise and a missing region.

Each function is pure: the images, how much, and a seed for each row; the same on every device and for any batch size.
A row's random numbers do not depend on the intensity, so a curve over it changes only because of the intensity.
"""

from __future__ import annotations

import torch
from torch import Tensor

from healing_mnist.checks import UserError
from healing_mnist.data import counter

FEW = 6.0  # photons up to which a Poisson number is found by summing probabilities
LARGEST = 24  # of those numbers: more has a chance of 1e-8
CHUNK = 1 << 15  # pixels summed at once: they stay in the cache


def gaussian(images: Tensor, intensity: float, seeds: Tensor) -> Tensor:
    """Add Gaussian noise of standard deviation `intensity`, then clip to [0, 1].

    Args:
        images: (B, ...) float32 in [0, 1], any further dimensions; every pixel of every frame is noisy by itself.
        intensity: in [0, 1]; 0 leaves the images as they are.
        seeds: (B,) int64 on the images' device.

    Raises:
        UserError: intensity outside [0, 1].
    """
    _check_intensity(intensity)
    return (images + intensity * counter.normal(seeds, images.shape[1:])).clamp_(0, 1)


def poisson(images: Tensor, intensity: float, seeds: Tensor) -> Tensor:
    """Count photons: Poisson(images * photons) / photons with photons = 1 / intensity^2, then clip to [0, 1].

    A white pixel has standard deviation `intensity`, as with `gaussian`; a pixel of value v has intensity * sqrt(v), so
    black stays black. At 1 a white pixel is one photon on average. Arguments and errors as in `gaussian`.
    """
    _check_intensity(intensity)
    if intensity == 0:
        return images.clone()
    photons = intensity**-2
    return (_poisson(images * photons, seeds) / photons).clamp_(0, 1)


def salt_and_pepper(images: Tensor, intensity: float, seeds: Tensor) -> Tensor:
    """Make each pixel black or white, each with probability intensity / 2, in all its channels.

    Arguments and errors as in `gaussian`; the last dimensions are (C, H, W).
    """
    _check_intensity(intensity)
    chance = counter.uniform(seeds, (*images.shape[1:-3], 1, *images.shape[-2:]))
    # The lower half of the chances for pepper, the upper for salt: what is hit stays hit as the intensity grows.
    return torch.where(chance < intensity / 2, 0.0, torch.where(chance >= 1 - intensity / 2, 1.0, images))


def missing_region(images: Tensor, side: int, seeds: Tensor) -> Tensor:
    """Blank (0) a square at a random place within the image, the same in all frames and channels of a row.

    Args:
        images: (B, ..., H, W) in [0, 1].
        side: pixels, 0 to the smaller of H and W; 0 leaves the images as they are.
        seeds: (B,) int64 on the images' device.

    Raises:
        UserError: a side below 0 or larger than the image.
    """
    height, width = images.shape[-2:]
    if not 0 <= side <= min(height, width):
        raise UserError(f"side={side}: a missing region must be 0 to {min(height, width)} pixels in {height}x{width}")
    chance = counter.uniform(seeds, (2,))
    top, left = (chance * torch.tensor([height - side + 1, width - side + 1], device=chance.device)).long().unbind(1)
    rows, columns = (torch.arange(size, device=images.device) for size in (height, width))
    inside_rows = (rows >= top[:, None]) & (rows < top[:, None] + side)
    inside_columns = (columns >= left[:, None]) & (columns < left[:, None] + side)
    region = inside_rows[:, :, None] & inside_columns[:, None, :]  # (B, H, W)
    return images.masked_fill(region.view(len(images), *[1] * (images.dim() - 3), height, width), 0.0)


def _poisson(mean: Tensor, seeds: Tensor) -> Tensor:
    """Poisson numbers of the means (B, ...) >= 0, by inverting the distribution function.

    Exact up to `FEW`. Beyond, the Cornish-Fisher expansion about a normal number, with Sheppard's correction for the
    rounding; its distribution function is within 0.0006 of the true one.
    """
    z, chance = counter.normal(seeds, mean.shape[1:]), counter.uniform(seeds, mean.shape[1:])  # of the same random bits
    root = mean.clamp(min=1).sqrt()
    count = z * (mean - 1 / 12).clamp_(0).sqrt() + mean + (z * z - 1) / 6 + z * (1 - z * z) / (72 * root)
    count = count.add_(0.5).floor_()
    few = mean <= FEW
    parts = zip(mean[few].split(CHUNK), chance[few].split(CHUNK), strict=True)
    if few.any():
        count[few] = torch.cat([_count_up(part, below) for part, below in parts])
    return count


def _count_up(mean: Tensor, chance: Tensor) -> Tensor:
    """How many values of the Poisson distribution function are at most `chance`, for means up to `FEW`."""
    term = (-mean).exp()
    total, count = term.clone(), torch.zeros_like(mean)
    for k in range(1, LARGEST + 1):
        count += total <= chance
        total += term.mul_(mean).div_(k)
    return count


def _check_intensity(intensity: float) -> None:
    if not 0 <= intensity <= 1:  # NaN is outside too
        raise UserError(f"intensity={intensity:g}: must be in [0, 1]")
