"""Classifiers that read an image row by row (R4)."""

from __future__ import annotations

from torch import Tensor, nn

from healing_mnist.batch import Output
from healing_mnist.checks import Fraction, Positive, Widths
from healing_mnist.networks.rows import CellName, RowEncoder


class RowClassifier(nn.Module):
    """Recurrent layers over the rows, then a linear layer from the last hidden state to the classes.

    Args:
        image_shape: (channels, height, width) of the images.
        num_classes: length of the logits.
        cell: kind of the recurrent layers.
        hidden: units of each layer; the last is the length of the embedding.
        dropout: probability before the linear layer.
    """

    def __init__(
        self,
        image_shape: tuple[Positive, Positive, Positive],
        num_classes: Positive = 10,
        cell: CellName = "lstm",
        hidden: Widths = (128, 128),
        dropout: Fraction = 0.0,
    ):
        super().__init__()
        self.encoder = RowEncoder(image_shape, cell, hidden)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden[-1], num_classes))

    def forward(self, images: Tensor) -> Output:
        """(B, C, H, W) -> logits (B, num_classes), embedding (B, hidden[-1])."""
        embedding = self.encoder(images)
        return Output(logits=self.head(embedding), embedding=embedding)
