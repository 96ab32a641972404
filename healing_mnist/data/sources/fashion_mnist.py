"""Fashion-MNIST: 60,000 + 10,000 pictures of clothes, 28x28, in MNIST's format (Xiao, Rasul and Vollgraf 2017)."""

from __future__ import annotations

from pathlib import Path

from healing_mnist.data.sources import Base

IMAGE_SHAPE = (1, 28, 28)
NUM_CLASSES = 10
CLASS_NAMES = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}


def load(root: Path | None, cache: Path) -> Base:
    from healing_mnist.data.idx import load_idx_source  # brings in torch

    return load_idx_source(root, cache / "fashion_mnist", MD5, MIRRORS, IMAGE_SHAPE, NUM_CLASSES)
