"""Import the large libraries in less time: they take longer than many a training on digits."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

SIGNAL = "scipy.signal"


@contextmanager
def importing() -> Iterator[None]:
    """Import in here without looking for garbage, of which imports make none, and without SciPy's signal processing.

    The collector leaves what is there when this ends alone for good, so that forks go on sharing it.
    """
    gc.disable()
    try:
        with _signal_stands_in():
            yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _signal_stands_in() -> Iterator[None]:
    # torchmetrics imports scipy.signal, and with it half of SciPy, to add one name for the sake of an audio metric, if
    # it is missing. In its place stands a module that has this name, and gets any other from the real one.
    if SIGNAL in sys.modules:
        yield
        return
    stand_in = ModuleType(SIGNAL)
    stand_in.hamming = None

    def real(name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # of whoever looks through all modules, and not into this one
            raise AttributeError(name)
        if sys.modules.get(SIGNAL) is stand_in:
            del sys.modules[SIGNAL]
        return getattr(importlib.import_module(SIGNAL), name)

    stand_in.__getattr__ = real
    sys.modules[SIGNAL] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(SIGNAL) is stand_in:
            del sys.modules[SIGNAL]
