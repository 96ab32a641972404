"""The IDX format of MNIST and its kin: two zero bytes, element type, number of dimensions, sizes, then the bytes."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Mapping, Sequence
from mmap import ACCESS_COPY, mmap
from pathlib import Path

import torch
from torch import Tensor

from healing_mnist.checks import UserError
from healing_mnist.data.download import fetch
from healing_mnist.data.sources import Base

UNSIGNED_BYTE = 0x08


def load_idx_source(
    root: Path | None,
    cache: Path,
    md5: Mapping[str, str],
    mirrors: Sequence[str],
    image_shape: tuple[int, int, int],
    num_classes: int,
) -> Base:
    """Read the four files named by `md5` (train images, train labels, test images, test labels).

    Args:
        root: a folder of the user's with the files, gz or plain; never written to. None fetches them into `cache`.

    Raises:
        UserError: missing folder or files, or a damaged one; the message names it and says what became of it.
    """
    paths = find(root, list(md5)) if root is not None else [fetch(n, md5[n], mirrors, cache) for n in md5]
    train_images, train_labels, test_images, test_labels = (read_idx(path) for path in paths)
    for images, labels, image_path, label_path in (
        (train_images, train_labels, *paths[:2]),
        (test_images, test_labels, *paths[2:]),
    ):
        expected = "x".join(map(str, image_shape[1:]))
        if images.dim() != 3 or tuple(images.shape[1:]) != image_shape[1:]:
            raise _damaged(image_path, f"holds {_shape(images)} values; expected N images of {expected}")
        if labels.dim() != 1 or len(labels) != len(images):
            raise _damaged(label_path, f"holds {_shape(labels)} labels for {len(images)} images")
        if len(labels) == 0 or labels.max() >= num_classes:
            raise _damaged(label_path, f"must hold labels in 0..{num_classes - 1}, at least one")
    return Base(train_images.unsqueeze(1), train_labels.long(), test_images.unsqueeze(1), test_labels.long())


def find(root: Path, names: Sequence[str]) -> list[Path]:
    """Where the user keeps the files: below `root` or `root`/raw, as NAME.gz or NAME, with ``-idx`` or ``.idx``."""
    if not root.is_dir():
        raise UserError(f"data.root={root}: no such folder")
    found = []
    for name in names:
        plain = name.removesuffix(".gz")
        spellings = [name, plain, name.replace("-idx", ".idx"), plain.replace("-idx", ".idx")]
        candidates = [folder / spelling for folder in (root, root / "raw") for spelling in spellings]
        found.append(next((path for path in candidates if path.is_file()), None))
    missing = [name for name, path in zip(names, found, strict=True) if path is None]
    if missing:
        raise UserError(f"data.root={root}: no {', '.join(missing)} (with or without .gz) there or in its folder raw")
    return found


def read_idx(path: Path) -> Tensor:
    """An IDX file of unsigned bytes, gz or plain, as a uint8 tensor of the shape it states.

    Raises:
        UserError: it cannot be read, is no such file, or is longer or shorter than it states.
    """
    try:
        with open(path, "rb") as file:  # mapped for private writing: no copy, and torch warns of what is read-only
            content = mmap(file.fileno(), 0, access=ACCESS_COPY) if path.stat().st_size else b""
        if content[:2] == b"\x1f\x8b":
            content = bytearray(gzip.decompress(content))
    except EOFError:
        raise _damaged(path, "is cut short: the compressed data end early") from None
    except (OSError, zlib.error) as error:  # BadGzipFile is an OSError
        raise _damaged(path, f"cannot be read ({error})") from None
    if len(content) < 4 or content[:3] != bytes((0, 0, UNSIGNED_BYTE)):
        raise _damaged(path, f"is no IDX file of bytes: it starts with {content[:4].hex(' ')}, not 00 00 08")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise _damaged(path, "is cut short in its header")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    size = torch.Size(shape).numel()
    if len(content) - start != size:
        raise _damaged(path, f"states {'x'.join(map(str, shape))} = {size} values and holds {len(content) - start}")
    return torch.frombuffer(content, dtype=torch.uint8)[start:].view(shape)


def _shape(values: Tensor) -> str:
    return "x".join(map(str, values.shape))


def _damaged(path: Path, what: str) -> UserError:
    # Files in the cache were verified when fetched, so a damaged one is the user's, and stays where it is.
    return UserError(f"{path} {what}. The file was left in place; replace it, or unset data.root to fetch a good copy.")
