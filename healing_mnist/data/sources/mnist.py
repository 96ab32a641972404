"""MNIST: 60,000 + 10,000 handwritten digits, 28x28 (LeCun, Cortes and Burges 1998)."""

from __future__ import annotations

from pathlib import Path

from healing_mnist.data.sources import Base

IMAGE_SHAPE = (1, 28, 28)
NUM_CLASSES = 10
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}


def load(root: Path | None, cache: Path) -> Base:
    from healing_mnist.data.idx import load_idx_source  # brings in torch

    return load_idx_source(root, cache / "mnist", MD5, MIRRORS, IMAGE_SHAPE, NUM_CLASSES)
