"""Whether an image has the square of Healing MNIST in its top-left corner, and how large: read off the pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


def square_size(images: Tensor) -> Tensor:
    """Side in pixels of the bright square in the top-left corner of each image, 0 where there is none.

    The rule: cut the image into nested angles around the corner, the k-th holding the 2k - 1 pixels whose larger
    coordinate, counted from 1, is k. The side is the number of angles, from the first on without a gap, that are at
    least 0.5 bright on average. A digit in the middle, however turned, leaves the first angles dark.

    Args:
        images: (N, C, H, W) in [0, 1]; channels are averaged.

    Returns:
        (N,) int64.
    """
    side = min(images.shape[-2:])
    place = torch.arange(side, device=images.device)
    angle = torch.maximum(place[:, None], place).flatten()  # of each pixel, from 0
    pixels = images.float().mean(1)[:, :side, :side].flatten(1)
    sums = pixels.new_zeros(len(pixels), side).index_add(1, angle, pixels)
    return (sums / (2 * place + 1) >= 0.5).long().cumprod(1).sum(1)


class SquareScores(Metric):
    """How well predicted images show the square, by `square_size` of prediction and target.

    `square_accuracy`: share of images in which the square is rightly present or rightly absent; `square_f1`: F1 of
    being present; `square_size_accuracy`: share of the images with a square whose size is right to the pixel;
    `square_accuracy_determined`: accuracy where the input settles the answer. A score without any image to count is
    left out.

    Args:
        prefix: put in front of these names.
    """

    full_state_update = False
    names = "square_accuracy", "square_f1", "square_size_accuracy", "square_accuracy_determined"
    counts = (
        "images",
        "right",
        "true_positives",
        "positives",
        "size_right",
        "present",
        "determined",
        "determined_right",
    )

    def __init__(self, prefix: str = ""):
        super().__init__()
        self.logs = [prefix + name for name in self.names]
        for name in self.counts:
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor, determined: Tensor | None = None) -> None:
        """Count images (N, C, H, W); `determined` (N,) is 1 where the input settles whether there is a square."""
        predicted, true = square_size(prediction), square_size(target)
        right = (predicted > 0) == (true > 0)
        self.images += len(right)
        self.right += right.sum()
        self.true_positives += ((predicted > 0) & (true > 0)).sum()
        self.positives += (predicted > 0).sum()
        self.size_right += ((predicted == true) & (true > 0)).sum()
        self.present += (true > 0).sum()
        if determined is not None:
            self.determined += determined.sum()
            self.determined_right += (right & (determined > 0)).sum()

    def compute(self) -> dict[str, Tensor]:
        shares = (
            (self.right, self.images),
            (2 * self.true_positives, self.positives + self.present),
            (self.size_right, self.present),
            (self.determined_right, self.determined),
        )
        return {name: part / whole for name, (part, whole) in zip(self.logs, shares, strict=True) if whole > 0}
