"""What the training frames of N6 go through: transitions that do not belong are found, targets are denoised.

Functions of frames alone, deterministic; which sequences and frames they are given is the data set's affair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from healing_mnist.checks import UserError


@dataclass(frozen=True)
class Transitions:
    """Differences of consecutive frames in a PCA space, for S sequences with J transitions each."""

    projection: Tensor  # (S, J, components) float32, whitened: standard normal if the differences were Gaussian
    explained: Tensor  # (components,) share of the variance each component explains
    distance: Tensor  # (S, J) Mahalanobis distance from the mean difference, standardised over all transitions
    outlying: Tensor  # (S, J) bool, distance beyond the threshold


def find_outliers(differences: Tensor, components: int, threshold: float, seed: int = 0) -> Transitions:
    """Fit a multivariate Gaussian to frame differences in a PCA space and mark what lies too far out.

    In k dimensions even a point of a true Gaussian lies about sqrt(k) from the mean, and most lie beyond 3. The
    Mahalanobis distances are therefore standardised themselves: a transition is an outlier when its distance is more
    than `threshold` standard deviations above the mean distance.

    Args:
        differences: (S, J, C, H, W), frame t+1 minus frame t.
        components: dimensions k of the PCA space.
        threshold: standard deviations of the distance.
        seed: of the randomised PCA solver.

    Raises:
        UserError: a difference is not a number; more components than transitions or pixels.
    """
    from sklearn.decomposition import PCA

    count, jumps = differences.shape[:2]
    flat = differences.reshape(count * jumps, -1)
    check_finite(differences)
    if components > min(flat.shape):
        raise UserError(
            f"data.components={components}: at most {min(flat.shape)}, there are {len(flat)} transitions of "
            f"{flat.shape[1]} pixels"
        )
    pca = PCA(components, whiten=True, svd_solver="randomized", random_state=seed)
    with np.errstate(invalid="ignore"):  # differences that are all alike
        projection = torch.from_numpy(pca.fit_transform(flat.numpy()).astype(np.float32))
    distance = projection.norm(dim=1)
    spread = distance.std()
    distance = (distance - distance.mean()) / spread if spread > 0 else torch.zeros_like(distance)
    distance = distance.view(count, jumps)
    return Transitions(
        projection.view(count, jumps, components),
        torch.from_numpy(pca.explained_variance_ratio_.astype(np.float32)),
        distance,
        distance > threshold,
    )


def precision_recall(found: Tensor, planted: Tensor) -> tuple[float, float]:
    """Share of the found that were planted, and of the planted that were found; NaN where there are none. Bool, any
    shape, both alike."""
    right = (found & planted).sum().item()
    of = [mask.sum().item() for mask in (found, planted)]
    return tuple(right / count if count else float("nan") for count in of)


def denoise(frames: Tensor, strength: float) -> Tensor:
    """Non-local means (Buades, Coll and Morel 2005) on each frame by itself: patches of 3x3 within 21x21.

    Args:
        frames: (N, C, H, W) uint8; channels are treated one by one.
        strength: h on the scale [0, 1]: patches that differ by much less are averaged.

    Returns:
        uint8, same shape.
    """
    import cv2

    planes = frames.flatten(0, 1).numpy()
    cleaned = np.empty_like(planes)
    for plane, place in zip(planes, cleaned, strict=True):
        cv2.fastNlMeansDenoising(plane, place, 255 * strength, 3, 21)
    return torch.from_numpy(cleaned).view_as(frames)


def check_finite(frames: Tensor) -> None:
    """Raise UserError when a value is NaN or infinite, saying how many are and in which sequence the first is."""
    bad = ~frames.isfinite()
    if bad.any():
        first = bad.flatten(1).any(1).nonzero()[0].item()
        raise UserError(f"data: {bad.sum().item()} pixels are NaN or infinite, the first in sequence {first}")
