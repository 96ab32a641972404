"""Tell the class of an image or a sequence."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection

from healing_mnist.batch import Batch, Output
from healing_mnist.tasks.base import Task
from healing_mnist.tasks.scores import class_scores


def cross_entropy(logits: Tensor, label: Tensor, softmax_before_loss: bool = False) -> Tensor:
    """Cross-entropy of logits (B, classes) and labels (B,).

    `softmax_before_loss` applies the soft-max twice, as R1's tables must have: with ten classes the loss then cannot
    fall below -log(e / (e + 9)) = 1.46. Kept to repeat those tables as printed.
    """
    return F.cross_entropy(logits.float().softmax(1) if softmax_before_loss else logits.float(), label)


class Classification(Task):
    """Bring the network's logits to the label.

    Args:
        network: returns `Output.logits` (B, num_classes).
        num_classes: how many classes there are.
        softmax_before_loss: see `cross_entropy`.
        **task: the arguments of `Task`.
    """

    needs = ("logits", "single images")

    def __init__(self, network: nn.Module, *, num_classes: int = 10, softmax_before_loss: bool = False, **task):
        super().__init__(network, **task)
        self.num_classes, self.softmax_before_loss = num_classes, softmax_before_loss

    def losses(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        return {"loss": cross_entropy(output.logits, batch.label, self.softmax_before_loss)}

    def make_scores(self, final: bool) -> MetricCollection:
        return MetricCollection(class_scores(self.num_classes))

    def update_scores(self, scores: MetricCollection, batch: Batch, output: Output) -> None:
        scores.update(output.logits, batch.label)
