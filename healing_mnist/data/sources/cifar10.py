"""CIFAR-10: 50,000 + 10,000 colour photographs, 32x32, in ten classes (Krizhevsky 2009), from the binary archive.

A record is one label byte and 3,072 pixel bytes: the red, the green and the blue plane, each row by row.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from healing_mnist.checks import UserError
from healing_mnist.data.sources import Base

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_SHAPE = (3, 32, 32)
NUM_CLASSES = 10
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ARCHIVE, MD5 = "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
FOLDER = "cifar-10-batches-bin"
TRAIN, TEST = tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"
RECORD = 1 + 3 * 32 * 32


def load(root: Path | None, cache: Path) -> Base:
    """Read the archive's six files from `root` or `root`/cifar-10-batches-bin, or fetch the archive into `cache` once.

    The files may hold fewer records than the official ones. `root` is never written to.

    Raises:
        UserError: missing folder or files, a damaged archive, a file of another format; each message names the file.
    """
    import torch

    folder = _find(root) if root is not None else _fetch(cache / "cifar10")
    train, test = [read_batch(folder / name) for name in TRAIN], read_batch(folder / TEST)
    images, labels = (torch.cat(parts) for parts in zip(*train, strict=True))
    return Base(images, labels, *test)


def read_batch(path: Path) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 32) uint8 and labels (N,) int64 of one file.

    Raises:
        UserError: not a whole number of records, no record, or a label above 9.
    """
    import torch

    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error})") from None
    advice = "The file was left in place; replace it, or unset data.root to fetch a good copy."
    if not content or len(content) % RECORD:
        raise UserError(
            f"{path} holds {len(content)} bytes, not a whole number of records of {RECORD} (one label, 3,072 pixels): "
            f"it is cut short or of another format. {advice}"
        )
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, RECORD)
    labels = records[:, 0].long()
    wrong = (labels >= NUM_CLASSES).nonzero().flatten()
    if len(wrong):
        raise UserError(f"{path}: record {wrong[0]} has label {labels[wrong[0]]}, allowed are 0 to 9. {advice}")
    return records[:, 1:].reshape(-1, *IMAGE_SHAPE), labels


def _find(root: Path) -> Path:
    """Which folder of the user's holds the files."""
    if not root.is_dir():
        raise UserError(f"data.root={root}: no such folder")
    folder = next((place for place in (root, root / FOLDER) if (place / TEST).is_file()), root)
    missing = [name for name in (*TRAIN, TEST) if not (folder / name).is_file()]
    if missing:
        python = any(root.rglob("data_batch_1"))
        raise UserError(
            f"data.root={root}: no {', '.join(missing)} there or in its folder {FOLDER}"
            + (f"; these are the pickled files, the binary archive ({ARCHIVE}) is needed" if python else "")
        )
    return folder


def _fetch(cache: Path) -> Path:
    """Folder of the unpacked files below `cache`, made once however many processes ask."""
    from filelock import FileLock

    from healing_mnist.data.download import fetch

    folder = cache / FOLDER
    if not folder.is_dir():
        archive = fetch(ARCHIVE, MD5, MIRRORS, cache)
        with FileLock(cache / f"{FOLDER}.lock"):
            if not folder.is_dir():
                unpack(archive, folder)
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Write the six files of `archive` into `folder`, which appears only when complete.

    Raises:
        UserError: the archive is damaged or lacks a file, or the folder cannot be written.
    """
    import os
    import shutil
    import tarfile
    import tempfile
    import zlib

    partial = None
    try:
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        partial.chmod(0o755)  # mkdtemp's folders are their maker's alone
        with tarfile.open(archive) as tar:
            for name in (*TRAIN, TEST):
                with tar.extractfile(f"{FOLDER}/{name}") as source, (partial / name).open("wb") as file:
                    shutil.copyfileobj(source, file)
        os.replace(partial, folder)
    except (tarfile.TarError, EOFError, zlib.error, KeyError) as error:
        raise UserError(f"{archive} is damaged ({error}); delete it, and it is fetched again") from None
    except OSError as error:
        raise UserError(f"data.cache: cannot write {folder} ({error}); name another folder with data.cache") from None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
