"""Tell Optuna how a trial comes along, and end it early when it falls behind the others."""

from __future__ import annotations

import json
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from healing_mnist.sweeps.search import TRIAL, open_storage


class Pruning(Callback):
    """Report `monitor` after every epoch to the study that the run's folder names; without one do nothing.

    A trial below the median of the others at the same epoch is stopped; the file ``pruned`` in its folder says so.
    """

    def __init__(self, monitor: str):
        self.monitor = monitor
        self._trial = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch and self._note(trainer).exists():  # killed in its test, and started again
            trainer.should_stop = True
        note = Path(trainer.default_root_dir) / TRIAL
        if note.exists():
            import optuna

            where = json.loads(note.read_text())
            study = optuna.load_study(study_name=where["study"], storage=open_storage(Path(where["journal"])))
            self._trial = optuna.trial.Trial(study, where["trial"])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        stale = self.monitor.startswith("val/") and not pl_module.validated  # measured in an earlier epoch
        if self._trial is None or stale or self.monitor not in trainer.callback_metrics:
            return
        self._trial.report(float(trainer.callback_metrics[self.monitor]), trainer.current_epoch + 1)
        if self._trial.should_prune():
            self._note(trainer).touch()
            trainer.should_stop = True

    def _note(self, trainer: L.Trainer) -> Path:
        return Path(trainer.default_root_dir) / "pruned"
