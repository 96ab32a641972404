"""Small pieces several networks are made of."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import nn

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
