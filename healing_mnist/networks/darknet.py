"""A small classifier in the style of Darknet-19, the backbone of YOLOv2 (Redmon and Farhadi 2017, arXiv:1612.08242)."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from healing_mnist.batch import Output
from healing_mnist.checks import NotEmpty, Positive, Range

Width = Annotated[int, Range(low=2)]  # the narrow layers have half of it


class DarknetClassifier(nn.Module):
    """Stages of 3x3 convolutions around a narrow 1x1 one, halved between stages; an average over the image at the end.

    Args:
        image_shape: (channels, height, width) of the images.
        num_classes: length of the logits.
        channels: output channels of each stage; the last is the length of the embedding.
    """

    def __init__(
        self,
        image_shape: tuple[Positive, Positive, Positive],
        num_classes: Positive = 10,
        channels: Annotated[list[Width], NotEmpty()] = (32, 64, 128),
    ):
        super().__init__()
        layers: list[nn.Module] = [_block(image_shape[0], channels[0] // 2, 3), nn.MaxPool2d(2, ceil_mode=True)]
        before = channels[0] // 2
        for i, width in enumerate(channels):
            layers += [_block(before, width, 3), _block(width, width // 2, 1), _block(width // 2, width, 3)]
            if i < len(channels) - 1:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            before = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(before, num_classes)  # Darknet's last 1x1 convolution, which the average commutes with

    def forward(self, images: Tensor) -> Output:
        """(B, C, H, W) -> logits (B, num_classes), embedding (B, channels[-1])."""
        embedding = self.features(images).mean((2, 3))
        return Output(logits=self.head(embedding), embedding=embedding)


def _block(inputs: int, outputs: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=False),  # batch norm brings the bias
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.1),
    )
