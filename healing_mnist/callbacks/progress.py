"""One progress bar for the whole training: epoch, loss, steps a second, time left."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from healing_mnist.checks import Positive


class Progress(ProgressBar):
    """A line on the terminal that counts the steps of all epochs, under the log's lines rather than among them.

    Args:
        every: steps between two looks at the clock.
    """

    def __init__(self, every: Positive = 20):
        super().__init__()
        self.every = every
        self._context = ExitStack()

    def enable(self) -> None:
        """Lightning asks for it in the first process."""

    def disable(self) -> None:
        """Lightning asks for it in all processes but the first, which alone starts the bar."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            total = trainer.max_epochs * trainer.num_training_batches
            self._bar = self._context.enter_context(
                tqdm(total=total, initial=self._done(trainer), unit=" steps", leave=False, dynamic_ncols=True)
            )
            self._context.enter_context(logging_redirect_tqdm())

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_global_zero and (batch_idx % self.every == 0 or trainer.is_last_batch):
            metrics = self.get_metrics(trainer, pl_module)
            self._bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", refresh=False)
            self._bar.set_postfix(loss=metrics.get("loss"), refresh=False)
            shown = self._bar.update(self._done(trainer) + batch_idx + 1 - self._bar.n)
            if trainer.is_last_batch and not shown:  # tqdm draws ten times a second at the most
                self._bar.refresh()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._context.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._context.close()

    def _done(self, trainer: L.Trainer) -> int:
        """Steps in the epochs before this one."""
        return trainer.current_epoch * trainer.num_training_batches
