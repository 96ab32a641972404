"""Damage to inputs: three kinds of noise and a missing region; the holes that it and others make.

Each damage is a pure function: the images, how much, and a seed for each row; the same on every device and for any
batch size. A row's random numbers do not depend on the intensity, so a curve over it changes only because of the
intensity.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    corner = hole_corners(counter.uniform(seeds, (2,)), side, (height, width))
    region = hole_pixels(corner, side, (height, width))  # (B, H, W)
    return images.masked_fill(region.view(len(images), *[1] * (images.dim() - 3), height, width), 0.0)


def hole_side(share: float, size: Sequence[int], setting: str) -> int:
    """Pixels along the edge of a square hole over `share`, in [0, 1], of an image (height, width); 0 for none.

    Raises:
        UserError: a share above 0 whose hole has no pixel, or leaves nothing to see; the message names `setting`.
    """
    side, most = round((size[0] * size[1] * share) ** 0.5), min(size) - 1
    if share and not 1 <= side <= most:
        raise UserError(
            f"{setting}={share:g}: a hole with a side of {side} pixels; it must have 1 to {most}, something must be "
            "left to see"
        )
    return side


def hole_corners(chance: Tensor, side: int, size: Sequence[int]) -> Tensor:
    """First row and column of each hole, int64 (..., 2), from chances (..., 2) in [0, 1) that run from edge to edge."""
    return (chance * torch.tensor([length - side + 1 for length in size], device=chance.device)).long()


def hole_pixels(corner: Tensor, side: int, size: Sequence[int]) -> Tensor:
    """bool (..., height, width), True in the hole of `side` pixels that begins at row and column `corner` (..., 2)."""
    rows, columns = (
        torch.arange(length, device=corner.device) - first[..., None]
        for length, first in zip(size, corner.unbind(-1), strict=True)
    )
    return ((rows >= 0) & (rows < side))[..., None] & ((columns >= 0) & (columns < side))[..., None, :]


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
