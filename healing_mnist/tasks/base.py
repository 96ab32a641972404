"""What every task shares: one step, the scores of each split, the optimizer."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MetricCollection

from healing_mnist.batch import Batch, Output
from healing_mnist.checks import UserError


def test_prefix(data: L.LightningDataModule, dataloader_idx: int) -> str:
    """What the names of a test split's metrics begin with: ``test``, or ``test/<split>`` where there are several."""
    splits = data.test_splits
    return "test" if len(splits) == 1 else f"test/{splits[dataloader_idx]}"


class Task(L.LightningModule):
    """One network, its losses and its scores.

    A subclass gives `losses`, a pure function of a batch and the network's output, `make_scores` and `update_scores`.

    Args:
        network: the module trained; called with `batch.input` unless `predict` is overridden.
        optimizer: called with the parameters that want gradients.
        scheduler: called with (optimizer, total_steps), returns the scheduler entry Lightning expects; None keeps the
            learning rate.
        channels_last: memory format of the convolutions, faster than the default from some channels on.
        compile: compile the network with torch.compile.
    """

    loss_names: tuple[str, ...] = ("loss",)  # what `losses` returns
    needs: tuple[str, ...] = ()  # of the network's output and of the data, by the names of `tryout`

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., Optimizer] = torch.optim.Adam,
        scheduler: Callable[[Optimizer, int], dict[str, Any]] | None = None,
        channels_last: bool = True,
        compile: bool = False,
    ):
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last) if channels_last else network
        if compile:
            self.network.compile()  # in place: names of parameters, and so checkpoints, stay the same
        self._optimizer, self._scheduler = optimizer, scheduler
        self._scores: dict[str, MetricCollection] = {}  # by prefix, those of the epoch under way
        self._totals = torch.zeros(0)  # sums over the epoch's rows, in the order of `_names`
        self._names: list[str] = []
        self._weight = 0
        self.validated = self.summed = False  # in this epoch: whether there are losses of validation, and of training
        self.config: dict[str, Any] = {}  # plain settings this task was built from; they travel in the checkpoint

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes which hook is running forty times a step, and a module is slow at taking attributes.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @abstractmethod
    def losses(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """Scalars to log; `loss` is the one minimised."""

    @abstractmethod
    def make_scores(self, final: bool) -> MetricCollection:
        """Fresh metrics of one split; `final` adds those too slow for every epoch. Names as logged: `mse`."""

    @abstractmethod
    def update_scores(self, scores: MetricCollection, batch: Batch, output: Output) -> None: ...

    def check_data(self, data: L.LightningDataModule) -> None:
        """Raise UserError where this task cannot learn from `data`, beyond its `needs`."""

    def baseline_names(self) -> list[str]:
        """Predictions that need no learning, scored beside the network's."""
        return []

    def weight_of(self, batch: Batch) -> int | Tensor:
        """How much the losses of a batch count in those of all of its split, a scalar: its rows."""
        return len(batch)

    def forward(self, batch: Batch) -> Output:
        return self.network(batch.input)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = self.losses(batch, self(batch))
        values = torch.stack([value.detach().float() for value in losses.values()])
        if batch_idx == 0:
            self._names, self._weight, self._totals = list(losses), 0, torch.zeros_like(values)
        weight = self.weight_of(batch)
        self._weight = self._weight + weight
        self._totals = self._totals + values * weight
        every = self.trainer.log_every_n_steps
        if every and batch_idx % every == 0:  # to look at a loss is to wait for the device
            self._refuse_nonfinite("train/loss", float(values[self._names.index("loss")]))
            self.log("loss", values[self._names.index("loss")], prog_bar=True, logger=False, batch_size=len(batch))
        return losses["loss"]

    def on_train_batch_end(self, *_: Any) -> None:
        if self.trainer.is_last_batch or self.trainer.global_step == self.trainer.max_steps:
            self._log_means()

    def _log_means(self) -> None:
        # The batch size is told lest Lightning look for it in the batch, where it would render a lazy input.
        means = dict(zip(self._names, (self._totals / self._weight).tolist(), strict=True))
        self._refuse_nonfinite("train/loss", means["loss"])
        means = {f"train/{name}": value for name, value in means.items()}
        self.log_dict(means, on_step=False, on_epoch=True, **self._weighted(self._weight))
        self.summed = True

    def _weighted(self, weight: int | Tensor) -> dict[str, Any]:
        """How Lightning shall log means of so many rows."""
        # It rounds the mean of the processes' weights down to a whole number: of multiples of their number it is one.
        processes = self.trainer.world_size
        return {"batch_size": int(weight) * processes, "sync_dist": processes > 1}

    def _refuse_nonfinite(self, name: str, loss: float) -> None:
        # All processes of ddp stop together: one alone would leave the others waiting for it.
        if not self.trainer.strategy.reduce_boolean_decision(math.isfinite(loss), all=True):
            what = "is finite here alone" if math.isfinite(loss) else f"is {loss}"
            raise UserError(
                f"{name} {what} at step {self.global_step} (epoch {self.current_epoch + 1}): training stopped. "
                "The last good checkpoint is kept; try a lower optimizer.lr or trainer.gradient_clip_val=1."
            )

    def validation_step(self, batch: Batch, batch_idx: int) -> Output:
        return self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Output:
        return self._evaluate(batch, self.test_prefix(dataloader_idx))

    def test_prefix(self, dataloader_idx: int) -> str:
        """`test_prefix` of the data tested now."""
        return test_prefix(self.trainer.datamodule, dataloader_idx)

    def _evaluate(self, batch: Batch, prefix: str) -> Output:
        output = self(batch)
        losses = {f"{prefix}/{name}": value for name, value in self.losses(batch, output).items()}
        self.log_dict(losses, add_dataloader_idx=False, **self._weighted(self.weight_of(batch)))
        if prefix not in self._scores:
            scores = self.make_scores(final=prefix.startswith("test")).clone(prefix=f"{prefix}/")
            self._scores[prefix] = scores.to(self.device)
        self.update_scores(self._scores[prefix], batch, output)
        return output

    def on_validation_epoch_end(self) -> None:
        self.validated = True
        self._log_scores()

    def on_test_epoch_end(self) -> None:
        self._log_scores()

    def _log_scores(self) -> None:
        for scores in self._scores.values():
            self.log_dict(scores.compute())
        self._scores.clear()

    def on_train_epoch_start(self) -> None:
        # A resumed run draws the same dropout and the same rows as one that was never stopped, each process its own.
        begin = self.trainer.datamodule.seed * 100_003 + self.current_epoch
        torch.manual_seed(begin + self.global_rank * 1_000_000_007)
        self.trainer.datamodule.start_epoch(self.current_epoch)
        self.validated = self.summed = False

    def on_train_epoch_end(self) -> None:
        if self.validated:  # the last steps may have spoiled the weights; no checkpoint of these is written
            self._refuse_nonfinite("val/loss", float(self.trainer.callback_metrics["val/loss"]))
        # Lightning would step it after the epoch's checkpoint is written, and on a metric of any earlier epoch.
        for entry in self.trainer.lr_scheduler_configs:
            if entry.reduce_on_plateau and (self.validated or not entry.monitor.startswith("val/")):
                entry.scheduler.step(self.trainer.callback_metrics[entry.monitor])

    def validation_metrics(self) -> dict[str, str | None]:
        """What validation logs, known before any training, each with the direction in which it gets better."""
        scores = {name: score.higher_is_better for name, score in self.make_scores(final=False).items()}
        words = {True: "maximize", False: "minimize", None: None}
        higher = dict.fromkeys(self.loss_names, False) | scores
        return {f"val/{name}": words[better] for name, better in higher.items()}

    def test_metrics(self, data: L.LightningDataModule) -> list[str]:
        """All that a test on `data`, which need not be set up, may log of this task; known before any training."""
        self.trainer = SimpleNamespace(datamodule=data)  # what scores may ask
        try:
            scores = self.make_scores(final=True)
        finally:
            self.trainer = None
        kept = scores.items(keep_base=True, copy_state=False)
        names = [*self.loss_names, *(name for key, score in kept for name in getattr(score, "logs", [key]))]
        return [f"{test_prefix(data, number)}/{name}" for number in range(len(data.test_splits)) for name in names]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self.config

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer([p for p in self.parameters() if p.requires_grad])
        if self._scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": self._scheduler(optimizer, int(self.trainer.estimated_stepping_batches)),
        }
