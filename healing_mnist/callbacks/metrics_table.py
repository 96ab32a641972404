"""The table of metrics per epoch."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from healing_mnist.files import as_csv, atomic_write

log = logging.getLogger(__name__)


class MetricsTable(Callback):
    """One row of metrics per epoch, in ``<run>/metrics.csv`` and in the log.

    The rows travel in the checkpoint, so that the table of a resumed run is that of one never stopped. So do the
    seconds trained so far; in the table they would make two equal runs differ.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.seconds_before = 0.0  # that earlier processes trained
        self._begun = self._started = 0.0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begun = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        # Lightning goes on showing what an earlier epoch measured; one that ends in its middle has no mean loss.
        fresh = {"val": pl_module.validated, "train": pl_module.summed}
        metrics = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if "/" in name and fresh.get(name.split("/")[0], True)
        }
        row = {"epoch": trainer.current_epoch + 1, **dict(sorted(metrics.items()))}
        self.rows.append(row)
        shown = "  ".join(f"{k} {v:.4g}" for k, v in metrics.items() if k == "train/loss" or k.startswith("val/"))
        seconds = time.perf_counter() - self._started
        log.info("epoch %d/%s  %s  (%.1f s)", row["epoch"], trainer.max_epochs, shown, seconds)
        atomic_write(Path(trainer.default_root_dir) / "metrics.csv", as_csv(self.rows))

    def row(self, epoch: int) -> dict[str, float]:
        """That of an epoch, counted from 1; {} where there is none."""
        return next((dict(row) for row in self.rows if row["epoch"] == epoch), {})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": self.seconds_before + time.perf_counter() - self._begun}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.seconds_before = state_dict["rows"], state_dict["seconds"]
