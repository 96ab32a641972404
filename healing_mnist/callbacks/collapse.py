"""Find runs that collapsed: their predictions are all but empty, or the same for every input."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
from torch import Tensor

from healing_mnist.batch import Batch, Output
from healing_mnist.callbacks.figures import publish_table
from healing_mnist.checks import Fraction

log = logging.getLogger(__name__)


class Collapse(L.Callback):
    """Compare how much predicted images differ from row to row with how much the targets do.

    `collapsed` is true when, over all test rows, the standard deviation of the predictions (root of the variance
    averaged over pixels) is less than `threshold` times that of the targets. metrics.json says so, the log warns, and
    ``figures/collapse.csv`` has both numbers.

    Args:
        threshold: share of the targets' standard deviation.
    """

    needs = ("image",)

    def __init__(self, threshold: Fraction = 0.1):
        self.threshold = threshold
        self.collapsed = False

    def on_test_epoch_start(self, trainer: L.Trainer, task: Any) -> None:
        self._spreads = {"prediction": Spread(), "target": Spread()}

    def on_test_batch_end(
        self, trainer: L.Trainer, task: Any, output: Output, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._spreads["prediction"].add(output.image)
        self._spreads["target"].add(batch.target)

    def on_test_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        rows = {f"{name}_std": spread.std() for name, spread in self._spreads.items()}
        self.collapsed = rows["prediction_std"] < self.threshold * rows["target_std"]
        publish_table(trainer, "collapse", [rows | {"collapsed": self.collapsed}])
        if self.collapsed:
            log.warning(
                "collapsed: the predictions are all but empty or the same for every input (standard deviation over "
                "rows %.2g, the targets' %.2g); try a lower optimizer.lr, another seed%s",
                *rows.values(),
                " or model.activation=sigmoid" * ("activation" in task.config.get("model", {})),
            )


class Spread:
    """Standard deviation over rows, from sums: no image is kept."""

    def __init__(self) -> None:
        self.count, self.sum, self.squares = 0, 0.0, 0.0

    def add(self, images: Tensor) -> None:
        """(B, ...); all batches alike but for B."""
        images = images.detach().float()
        self.count += len(images)
        self.sum = self.sum + images.sum(0)
        self.squares = self.squares + images.square().sum(0)

    def std(self) -> float:
        """Root of the variance over rows, averaged over all else."""
        variance = self.squares / self.count - (self.sum / self.count).square()
        return variance.clamp(min=0).mean().sqrt().item()
