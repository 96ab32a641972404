"""Small pieces several networks are made of."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from healing_mnist.checks import Fraction, Positive

ActivationName = Literal["relu", "leaky_relu", "elu", "tanh"]
_ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "tanh": nn.Tanh}


def activation_layer(name: ActivationName) -> nn.Module:
    """A fresh activation module."""
    return _ACTIVATIONS[name]()


class MLP(nn.Sequential):
    """Linear layers with an activation (and dropout) between them, none after the last: (B, in) -> (B, out)."""

    def __init__(
        self,
        in_features: Positive,
        hidden: list[Positive],
        out_features: Positive,
        activation: ActivationName = "relu",
        dropout: Fraction = 0.0,
    ):
        layers: list[nn.Module] = []
        for width, following in pairwise([in_features, *hidden]):
            layers += [nn.Linear(width, following), activation_layer(activation)]
            if dropout:
                layers.append(nn.Dropout(dropout))
        super().__init__(*layers, nn.Linear([in_features, *hidden][-1], out_features))


class Sigmoid(nn.Sigmoid):
    """In float32, also under autocast: in half precision it is soon 0 or 1, where cross-entropy has no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


def in_float32(recurrent: nn.Module, inputs: Tensor | PackedSequence) -> Any:
    """Call a recurrent layer in float32, also under autocast.

    There cuDNN's layers compute in float16, even where bfloat16 was asked for and no loss is scaled: most of the
    gradients of a small LSTM then underflow.
    """
    device = (inputs.data if isinstance(inputs, PackedSequence) else inputs).device
    with torch.autocast(device.type, enabled=False):
        return recurrent(inputs.float())


class ToImage(nn.ConvTranspose2d):
    """Transposed convolution to few channels, (B, in, h, w) -> (B, out, H, W), without groups and dilation.

    On a CPU the forward pass is a product of matrices whose columns are added where kernels overlap: oneDNN, which pads
    the output to 8 channels, takes twice as long for one channel and half as long again for three.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if maps.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return super().forward(maps)
        return _ToImage.apply(maps, self.weight, self.bias, self.stride, self.padding, self.output_padding)


class _ToImage(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, *geometry: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.geometry = stride, padding, extra = geometry
        (count, _, *small), (_, out, *kernel), (down, right) = maps.shape, weight.shape, stride
        columns = weight.flatten(1).T @ maps.transpose(0, 1).flatten(1)
        columns = columns.view(out, *kernel, count, *small)
        height, width = [(n - 1) * s + k + e for n, s, k, e in zip(small, stride, kernel, extra, strict=True)]
        image = maps.new_zeros(count, out, height, width)
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                touched = image[:, :, i : i + down * small[0] : down, j : j + right * small[1] : right]
                touched += columns[:, i, j].transpose(0, 1)
        return image[:, :, padding[0] : height - padding[0], padding[1] : width - padding[1]] + bias.view(-1, 1, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight = ctx.saved_tensors
        stride, padding, extra = ctx.geometry
        gradients = torch.ops.aten.convolution_backward(
            gradient, maps, weight, [weight.shape[1]], stride, padding, [1, 1], True, extra, 1, ctx.needs_input_grad[:3]
        )
        return *gradients, None, None, None
