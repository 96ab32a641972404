"""What a restoration has to beat: the input as it is, and the mean training image."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
from torch import Tensor
from torchmetrics import MeanSquaredError

from healing_mnist.batch import Batch, Output
from healing_mnist.callbacks.figures import publish_table, some_rows, split_prefix
from healing_mnist.checks import Positive

log = logging.getLogger(__name__)


class RestorationBaselines(L.Callback):
    """MSE of the network beside that of returning the input unchanged and of the mean training image.

    Logged as ``test/mse_input`` and ``test/mse_mean_image`` and saved as baselines.csv; the log says so when the
    network does not beat both. Where the input is the target itself, it is no rival and left out.

    Args:
        rows: the most training images that are averaged.
    """

    def __init__(self, rows: Positive = 10_000):
        self.rows = rows
        self._mean: Tensor | None = None
        self._scores: dict[int, dict[str, MeanSquaredError]] = {}

    def on_test_start(self, trainer: L.Trainer, task: Any) -> None:
        rows = some_rows(trainer, "train", self.rows, task.device)
        parts = rows.split(trainer.datamodule.eval_batch_size)
        self._mean = sum(trainer.datamodule.batch("train", index).target.sum(0) for index in parts) / len(rows)

    def on_test_batch_end(
        self, trainer: L.Trainer, task: Any, output: Output, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        answers = {"network": output.image, "input": batch.input, "mean_image": self._mean.expand_as(batch.target)}
        if batch.input is batch.target:
            del answers["input"]
        scores = self._scores.setdefault(dataloader_idx, {})
        for name, image in answers.items():
            score = scores.setdefault(name, MeanSquaredError().to(batch.target.device))
            score.update(image.float().contiguous(), batch.target)

    def on_test_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        for loader, scores in self._scores.items():
            prefix = split_prefix(trainer, loader)
            split = f"test/{prefix.rstrip('_')}" if prefix else "test"
            mse = {name: float(score.compute()) for name, score in scores.items()}
            for name in ("input", "mean_image"):
                if name in mse:
                    task.log(f"{split}/mse_{name}", mse[name])
            publish_table(trainer, f"{prefix}baselines", [{"answer": k, "mse": v} for k, v in mse.items()])
            network = mse.pop("network")
            rival = min(mse, key=mse.get)
            if network >= mse[rival]:
                known = {"input": "returning the input unchanged", "mean_image": "the mean training image"}[rival]
                log.warning("%s/mse %.5f is not below %.5f, that of %s", split, network, mse[rival], known)
        self._scores = {}
