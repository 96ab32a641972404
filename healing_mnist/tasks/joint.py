"""Reconstruct and classify with one embedding (R1 4.3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from healing_mnist.batch import Batch, Output
from healing_mnist.checks import Fraction, UserError
from healing_mnist.tasks.classification import cross_entropy
from healing_mnist.tasks.reconstruction import LossName, Reconstruction
from healing_mnist.tasks.scores import class_scores, image_scores


class Joint(Reconstruction):
    """loss = w * reconstruction + (1 - w) * classification (R1 4.3).

    With ``reconstruction_weight="dynamic"`` each loss is weighted by the other's previous value over the sum of both:
    w = classification / (reconstruction + classification) with the values of the training step before, 0.5 at first.

    Args:
        network: returns `Output.image` and `Output.logits`.
        reconstruction_weight: w in [0, 1] (the report's lambda), or "dynamic".
        num_classes: how many classes there are.
        softmax_before_loss: see `cross_entropy`.
        loss: reconstruction loss.
        **task: the arguments of `Task`.
    """

    needs = ("image", "logits", "single images")
    loss_names = ("loss", "reconstruction", "classification")

    def __init__(
        self,
        network: nn.Module,
        *,
        reconstruction_weight: Fraction | Literal["dynamic"] = 0.95,
        num_classes: int = 10,
        softmax_before_loss: bool = False,
        loss: LossName = "mse",
        **task,
    ):
        if not (reconstruction_weight == "dynamic" or 0 <= reconstruction_weight <= 1):
            raise UserError(f"task.reconstruction_weight={reconstruction_weight}: must be in [0, 1] or 'dynamic'")
        super().__init__(network, loss=loss, **task)
        self.dynamic = reconstruction_weight == "dynamic"
        if self.dynamic:
            self.loss_names = (*self.loss_names, "weight")
        self.num_classes, self.softmax_before_loss = num_classes, softmax_before_loss
        # A tensor, not a number: it goes with the checkpoint.
        self.register_buffer("weight", torch.tensor(0.5 if self.dynamic else float(reconstruction_weight)))

    def losses(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        reconstruction = self.image_loss(output.image, batch.target)
        classification = cross_entropy(output.logits, batch.label, self.softmax_before_loss)
        loss = self.weight * reconstruction + (1 - self.weight) * classification
        parts = {"loss": loss, "reconstruction": reconstruction, "classification": classification}
        if self.dynamic:
            parts["weight"] = self.weight
            if self.training:
                ratio = classification.detach() / (reconstruction.detach() + classification.detach())
                self.weight = ratio.float()
        return parts

    def validation_metrics(self) -> dict[str, str | None]:
        """As for every task; the dynamic weight among them is no better high than low."""
        return super().validation_metrics() | ({"val/weight": None} if self.dynamic else {})

    def make_scores(self, final: bool) -> MetricCollection:
        return MetricCollection(image_scores(final) | class_scores(self.num_classes), compute_groups=False)

    def update_scores(self, scores: MetricCollection, batch: Batch, output: Output) -> None:
        image, target = output.image.float().contiguous(), batch.target
        for name, metric in scores.items(keep_base=True):
            metric.update(*((output.logits, batch.label) if name == "accuracy" else (image, target)))
