"""Small IDX files for tests."""

import gzip
import struct

import numpy as np

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(values, element=0x08):
    """The bytes of an IDX file."""
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, element, values.ndim, *values.shape)
    return header + values.astype(np.uint8).tobytes()


def four_arrays(train=6, test=4):
    random = np.random.default_rng(0)
    return [
        random.integers(0, 256, (train, 28, 28)),
        random.integers(0, 10, train),
        random.integers(0, 256, (test, 28, 28)),
        random.integers(0, 10, test),
    ]


def write_four(folder, arrays, compress=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in zip(NAMES, arrays, strict=True):
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(values)))
        else:
            (folder / name).write_bytes(idx(values))
