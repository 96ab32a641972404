"""What Lightning does around each step, without the part that does nothing.

Before and after every part of a step Lightning calls every callback and measures the call, though few have something to
do there and nothing is measured unless a profiler was asked for. Small networks train in steps of a few milliseconds.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import PassThroughProfiler

STEP_HOOKS = tuple(name for name in vars(Callback) if "batch" in name or name.startswith(("on_before_", "on_after_")))
NOTHING = nullcontext()


class Unmeasured(PassThroughProfiler):
    """Lightning's profiler that measures nothing, without a generator made for each call it does not measure."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:
        return NOTHING


def drop_idle_hooks(trainer: L.Trainer) -> None:
    """Have the trainer skip the hooks of a step that a callback leaves as they are: it calls what can be called."""
    for callback in trainer.callbacks:
        for name in STEP_HOOKS:
            if getattr(type(callback), name) is getattr(Callback, name):
                setattr(callback, name, None)
