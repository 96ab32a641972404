from __future__ import annotations

import lightning as L
import pytest
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.demos.boring_classes import BoringModel

from healing_mnist.lean import STEP_HOOKS, Unmeasured, drop_idle_hooks


class Quiet(Callback):
    """Has nothing to do in a step."""


class Counting(Callback):
    """Every hook of a step counts its calls."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}

    def count(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1


for name in STEP_HOOKS:
    setattr(Counting, name, lambda self, *_, name=name, **__: self.count(name))


def trained(lean: bool, tmp_path) -> tuple[dict[str, int], Quiet]:
    counting, quiet = Counting(), Quiet()
    trainer = L.Trainer(
        max_epochs=2,
        limit_train_batches=3,
        limit_val_batches=2,
        accelerator="cpu",
        callbacks=[quiet, counting],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(tmp_path),
        profiler=Unmeasured() if lean else None,
    )
    if lean:
        drop_idle_hooks(trainer)
    trainer.fit(BoringModel())
    return counting.calls, quiet


@pytest.mark.filterwarnings("ignore")
def test_hooks_with_something_to_do_are_called_as_ever(tmp_path):
    plain, _ = trained(False, tmp_path)
    lean, quiet = trained(True, tmp_path)
    assert lean == plain
    assert lean["on_train_batch_end"] == lean["on_before_zero_grad"] == 6
    assert quiet.on_train_batch_end is None
    assert callable(quiet.on_fit_start)  # once a run: not worth it, and some of these Lightning calls unasked
