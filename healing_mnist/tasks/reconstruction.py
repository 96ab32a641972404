"""Reconstruct or restore images: autoencoders, denoising, deblurring."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torchmetrics import MetricCollection

from healing_mnist.batch import Batch, Output
from healing_mnist.tasks import losses
from healing_mnist.tasks.base import Task
from healing_mnist.tasks.losses import flat_frames
from healing_mnist.tasks.scores import image_scores

LossName = Literal["mse", "l1", "ssim", "bce"]


class Reconstruction(Task):
    """Bring the network's image close to the target.

    Args:
        network: returns `Output.image` in the layout of the target.
        loss: name of a function in `tasks/losses.py`.
        **task: the arguments of `Task`.
    """

    needs: tuple[str, ...] = ("image", "single images")

    def __init__(self, network: nn.Module, *, loss: LossName = "mse", **task):
        super().__init__(network, **task)
        self.image_loss = getattr(losses, loss)

    def losses(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        return {"loss": self.image_loss(output.image, batch.target)}

    def make_scores(self, final: bool) -> MetricCollection:
        return MetricCollection(image_scores(final), compute_groups=False)

    def update_scores(self, scores: MetricCollection, batch: Batch, output: Output) -> None:
        # Metrics count in float32 whatever the network computed in, and take no channels_last layout.
        scores.update(flat_frames(output.image).float().contiguous(), flat_frames(batch.target))
