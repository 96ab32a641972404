"""Base images, one module a source: ``data.source=NAME`` is the module NAME here, or a dotted path of the user's own.

A source module has `IMAGE_SHAPE = (C, H, W)`, `NUM_CLASSES` and `load(root: Path | None, cache: Path) -> Base`, and is
cheap to import: torch comes in with `load`. Every module of this package is a source; helpers live beside it.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from healing_mnist.checks import UserError, suggestion

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Base:
    """Base images of one source: uint8 ``(N, C, H, W)`` with int64 labels ``(N,)``, the source's own train and test."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def names() -> list[str]:
    """The sources that come with the package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def check_root(root: str | None) -> None:
    """Raise UserError where there is no folder `root`; None is none."""
    if root is not None and not Path(root).expanduser().is_dir():
        raise UserError(f"data.root={root}: no such folder")


def load(name: str, root: str | Path | None = None, cache: str | Path = "~/.cache/healing_mnist") -> Base:
    """Read a source from the folder `root`, or, when that is None, from `cache`, where it is fetched to once.

    Raises:
        UserError: unknown source; missing or damaged files; nothing could be fetched; images or labels are not as
            `Base` has them.
    """
    source = _module(name)
    base = source.load(Path(root).expanduser() if root is not None else None, Path(cache).expanduser())
    shape = tuple(source.IMAGE_SHAPE)
    for part in ("train", "test"):
        images, labels = getattr(base, f"{part}_images"), getattr(base, f"{part}_labels")
        found = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
        if found != f"uint8 {(len(labels), *shape)}":
            raise UserError(f"data.source={name}: {part}_images must be uint8 {(len(labels), *shape)}, not {found}")
        if not len(labels):
            raise UserError(f"data.source={name}: no {part}_images")
        kind = f"{str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}"
        if kind != f"int64 {(len(labels),)}" or labels.min() < 0 or labels.max() >= source.NUM_CLASSES:
            raise UserError(
                f"data.source={name}: {part}_labels must be int64 {(len(labels),)} in 0..{source.NUM_CLASSES - 1}, not "
                f"{kind} in {labels.min()}..{labels.max()}"
            )
    return base


def image_shape(name: str) -> tuple[int, int, int]:
    """(channels, height, width) of a source, known without loading it."""
    return tuple(_module(name).IMAGE_SHAPE)


def num_classes(name: str) -> int:
    return _module(name).NUM_CLASSES


def class_names(name: str) -> list[str]:
    """What a source calls its classes (`CLASS_NAMES`); their numbers where it does not say."""
    source = _module(name)
    return [str(name) for name in getattr(source, "CLASS_NAMES", range(source.NUM_CLASSES))]


def _module(name: str) -> ModuleType:
    path = str(name) if "." in str(name).strip(".") else f"{__name__}.{name}"
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):  # it lacks what it imports itself
            raise UserError(f"data.source={name}: cannot be imported ({error})") from error
        raise UserError(
            f"data.source={name}: unknown source{suggestion(str(name), names())}; allowed: {', '.join(names())}, "
            "or the dotted path of a module"
        ) from None
    except (ImportError, SyntaxError) as error:
        raise UserError(f"data.source={name}: cannot be imported ({error})") from error
    absent = [part for part in ("IMAGE_SHAPE", "NUM_CLASSES", "load") if not hasattr(module, part)]
    if absent:
        raise UserError(f"data.source={name}: {module.__name__} is no source, it has no {', '.join(absent)}")
    return module
