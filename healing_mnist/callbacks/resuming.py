"""Lightning's callbacks that watch a metric, for runs that are stopped, moved and continued."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch import callbacks


class ModelCheckpoint(callbacks.ModelCheckpoint):
    """Lightning's, which goes on with the best epoch so far where the run's folder has been moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before = str(state_dict["dirpath"])

        def here(value: Any) -> Any:
            if isinstance(value, dict):
                return {here(key): score for key, score in value.items()}
            return self.dirpath + value.removeprefix(before) if str(value).startswith(before) else value

        super().load_state_dict({key: here(value) for key, value in state_dict.items()})


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, which keeps a run stopped that it had stopped before: one killed in its test, and started again."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience
