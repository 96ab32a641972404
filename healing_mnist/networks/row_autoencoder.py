"""Recurrent autoencoders that read and write an image row by row (R3, R4)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from healing_mnist.batch import Output
from healing_mnist.checks import Positive, Widths
from healing_mnist.networks.rows import CellName, RowEncoder, SigmoidLSTM, from_rows, run, stack


class RowAutoencoder(nn.Module):
    """Recurrent layers read the rows; their last state, repeated once a row, drives the layers that write them.

    R4's at 32x32x3 has 128 units either way: 259,168 parameters with LSTM cells and 74,080 with plain ones. R3's reads
    with LSTM 512 and 256 and writes with LSTM 256 and, as last layer, "an LSTM of 96 units with sigmoid". We read that
    as Keras does: the sigmoid takes the place of both tanh inside the cell (`SigmoidLSTM`), so its hidden values are
    the pixels. A sigmoid behind an ordinary LSTM, whose values lie in (-1, 1), could only paint grey from 0.27 to 0.73.

    Args:
        image_shape: (channels, height, width) of the images.
        cell: kind of the recurrent layers.
        encoder: units of each reading layer; the last is the length of the embedding.
        decoder: units of each writing layer.
        output: from the last writing layer to a row's pixels: "linear" (R4; not bound to [0, 1]) or
            "sigmoid_lstm" (R3).
    """

    def __init__(
        self,
        image_shape: tuple[Positive, Positive, Positive],
        cell: CellName = "lstm",
        encoder: Widths = (128,),
        decoder: Widths = (128,),
        output: Literal["linear", "sigmoid_lstm"] = "linear",
    ):
        super().__init__()
        self.channels, self.height, width = image_shape
        self.encoder = RowEncoder(image_shape, cell, encoder)
        self.decoder = stack(cell, encoder[-1], decoder)
        row = self.channels * width
        self.to_pixels = nn.Linear(decoder[-1], row) if output == "linear" else SigmoidLSTM(decoder[-1], row)

    def forward(self, images: Tensor) -> Output:
        """(B, C, H, W) -> image (B, C, H, W), embedding (B, encoder[-1])."""
        embedding = self.encoder(images)
        steps = embedding[:, None].expand(-1, self.height, -1)
        rows = self.to_pixels(run(self.decoder, steps))
        return Output(image=from_rows(rows, self.channels), embedding=embedding)
