"""An image read as a sequence of its rows, and the recurrent layers that read it (R3, R4).

The layers are those of Keras, which the reports used: one bias per gate where PyTorch keeps two, Glorot and orthogonal
initial weights, a forget gate that starts open.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from healing_mnist.checks import Positive
from healing_mnist.networks.layers import in_float32

CellName = Literal["lstm", "rnn"]


def to_rows(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W * C): a row's pixels from left to right, each with its channels side by side."""
    return images.permute(0, 2, 3, 1).flatten(2)


def from_rows(rows: Tensor, channels: int) -> Tensor:
    """(B, H, W * C) -> (B, C, H, W)."""
    return rows.unflatten(2, (-1, channels)).permute(0, 3, 1, 2).contiguous()


def recurrent_layer(cell: CellName, inputs: Positive, hidden: Positive) -> nn.RNNBase:
    """An nn.LSTM or nn.RNN (tanh), batch first, with one bias per gate: cuDNN's kernels, Keras's parameter count."""
    layer = {"lstm": nn.LSTM, "rnn": nn.RNN}[cell](inputs, hidden, batch_first=True)
    # The second bias becomes a constant zero: a buffer, which no optimizer sees and no checkpoint holds.
    zeros = torch.zeros_like(layer.bias_hh_l0)
    del layer.bias_hh_l0
    layer.register_buffer("bias_hh_l0", zeros, persistent=False)
    layer._init_flat_weights()
    _initialize(layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0)
    return layer


class SigmoidLSTM(nn.Module):
    """An LSTM whose activation is the logistic function s in place of tanh: Keras's ``LSTM(activation="sigmoid")``.

    i, f, o = s(.); c' = f.c + i.s(.); h' = o.s(c'). Hidden values lie in (0, 1), so that they can be pixels. cuDNN has
    no such cell; all four gates share one product and one activation here.

    Args:
        inputs: values of a step.
        hidden: units.
    """

    def __init__(self, inputs: Positive, hidden: Positive):
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden, inputs))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden, hidden))
        self.bias = nn.Parameter(torch.empty(4 * hidden))
        _initialize(self.weight_ih, self.weight_hh, self.bias)

    def forward(self, steps: Tensor) -> Tensor:
        """(B, T, inputs) -> (B, T, hidden) in (0, 1)."""
        hidden = cell = steps.new_zeros(len(steps), self.weight_hh.shape[1])
        outputs = []
        for inputs in F.linear(steps, self.weight_ih, self.bias).unbind(1):
            i, f, g, o = torch.addmm(inputs, hidden, self.weight_hh.t()).sigmoid().chunk(4, dim=1)
            cell = f * cell + i * g
            hidden = o * cell.sigmoid()
            outputs.append(hidden)
        return torch.stack(outputs, dim=1)


def _initialize(weight_ih: Tensor, weight_hh: Tensor, bias: Tensor) -> None:
    """Keras's defaults; gates lie in the order input, forget, cell, output."""
    nn.init.xavier_uniform_(weight_ih)
    nn.init.orthogonal_(weight_hh)
    nn.init.zeros_(bias)
    hidden = weight_hh.shape[1]
    if len(bias) == 4 * hidden:
        nn.init.ones_(bias[hidden : 2 * hidden])


class RowEncoder(nn.Module):
    """Recurrent layers over the rows, from top to bottom: (B, C, H, W) -> last hidden state (B, hidden[-1]).

    Args:
        image_shape: (channels, height, width) of the images.
        cell: kind of the layers.
        hidden: units of each layer.
    """

    def __init__(
        self, image_shape: tuple[Positive, Positive, Positive], cell: CellName = "lstm", hidden: list[Positive] = (128,)
    ):
        super().__init__()
        channels, _, width = image_shape
        self.layers = stack(cell, channels * width, hidden)

    def forward(self, images: Tensor) -> Tensor:
        return run(self.layers, to_rows(images))[:, -1]


def stack(cell: CellName, inputs: int, hidden: list[int]) -> nn.ModuleList:
    widths = [inputs, *hidden]
    return nn.ModuleList(recurrent_layer(cell, a, b) for a, b in zip(widths, hidden, strict=False))


def run(layers: nn.ModuleList, steps: Tensor) -> Tensor:
    """(B, T, inputs) -> (B, T, hidden) of the last layer."""
    for layer in layers:
        steps, _ = in_float32(layer, steps)
    return steps
