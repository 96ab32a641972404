"""1,797 real handwritten digits bundled with scikit-learn, 8x8, enlarged to 28x28: works offline.

UCI "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998). As in MNIST the digit fills a box of about
20x20 in the middle, so that nothing leaves the image when it is rotated.
"""

from __future__ import annotations

from pathlib import Path

from healing_mnist.checks import UserError
from healing_mnist.data.sources import Base

IMAGE_SHAPE = (1, 28, 28)
NUM_CLASSES = 10
TEST_EVERY = 5  # every fifth image of a class is a test image: 1,442 for training, 355 for test


def load(root: Path | None, cache: Path) -> Base:
    """Enlarge the digits; the same images and the same split on every call. No file is read: `cache` is not needed.

    Raises:
        UserError: a `root` is given, by someone who means another source.
    """
    import torch
    from sklearn.datasets import load_digits
    from torch.nn import functional as F

    if root is not None:
        raise UserError(
            f"data.root={root}: data.source=digits is bundled and reads no folder; name the source of these files, as "
            "data.source=mnist"
        )
    small, labels = load_digits(return_X_y=True)  # (N, 64) in 0..16
    small, labels = torch.from_numpy(small).float().view(-1, 1, 8, 8), torch.from_numpy(labels).long()
    framed = F.pad(small * (255 / 16), (1, 1, 1, 1))  # strokes fade out instead of ending at a hard edge
    enlarged = F.interpolate(framed, size=(24, 24), mode="bicubic")
    images = F.pad(enlarged.round().clamp(0, 255).to(torch.uint8), (2, 2, 2, 2))

    own_class = F.one_hot(labels, NUM_CLASSES)
    rank = (own_class.cumsum(0) * own_class).sum(1)  # 1, 2, 3 ... within the class
    test = rank % TEST_EVERY == 0
    return Base(images[~test], labels[~test], images[test], labels[test])
