"""Image classifiers."""

from __future__ import annotations

import math

from torch import Tensor, nn

from healing_mnist.batch import Output
from healing_mnist.checks import Fraction, Positive
from healing_mnist.networks.autoencoder import ImageShape, downsampled_sizes


class CNNClassifier(nn.Module):
    """Twice (convolution, ReLU, max-pool), then two fully connected layers (R1 3).

    Args:
        image_shape: (channels, height, width) of the images.
        num_classes: length of the logits.
        channels: output channels of the convolutions, one block each.
        kernel_size: side of the square kernels.
        hidden: width of the first fully connected layer; its activations are the embedding.
        dropout: probability before the last layer.

    Raises:
        UserError: when the image is too small for so many blocks.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        num_classes: Positive = 10,
        channels: list[Positive] = (16, 32),
        kernel_size: Positive = 5,
        hidden: Positive = 128,
        dropout: Fraction = 0.0,
    ):
        super().__init__()
        before, *sides = image_shape
        size = [downsampled_sizes(side, len(channels), kernel_size, "pool")[-1] for side in sides]
        layers: list[nn.Module] = []
        for width in channels:
            layers += [nn.Conv2d(before, width, kernel_size, padding=kernel_size // 2), nn.ReLU(), nn.MaxPool2d(2)]
            before = width
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * math.prod(size), hidden), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, num_classes))

    def forward(self, images: Tensor) -> Output:
        """(B, C, H, W) in [0, 1] -> logits (B, num_classes), embedding (B, hidden)."""
        embedding = self.features(images)
        return Output(logits=self.head(embedding), embedding=embedding)
