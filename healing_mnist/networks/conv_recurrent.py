"""Stacks of convolutional recurrent cells that predict the next frames: ConvLSTM (R2 2), ConvGRU, ConvRNN."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from healing_mnist.batch import Output, valid_frames
from healing_mnist.checks import Positive
from healing_mnist.networks.autoencoder import ImageShape
from healing_mnist.networks.conv_cells import ConvGRUCell, ConvLSTMCell, ConvRNNCell, State, same_conv
from healing_mnist.networks.layers import Sigmoid

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": Sigmoid, "none": nn.Identity}


class ConvRecurrent(nn.Module):
    """Layers of one kind of cell, each unrolled over all frames before the next; a convolution makes the image.

    Args:
        image_shape: (channels, height, width) of a frame.
        layers: stacked cells.
        hidden_channels: maps in each layer's hidden state.
        kernel_size: side of all square kernels, odd.
        batch_norm: normalise hidden states between layers, over batch, time and place.
        activation: of the image. Targets lie in [0, 1], so `sigmoid` reaches all of them and nothing else; `relu` and
            `tanh` are R2's. With `relu` a bad start can leave all pixels zero and without a gradient.

    Raises:
        UserError: the kernel size is even.
    """

    cell: type[nn.Module]

    def __init__(
        self,
        image_shape: ImageShape,
        layers: Positive = 2,
        hidden_channels: Positive = 16,
        kernel_size: Positive = 3,
        batch_norm: bool = True,
        activation: Literal["relu", "tanh", "sigmoid", "none"] = "relu",
    ):
        super().__init__()
        widths = [image_shape[0]] + [hidden_channels] * layers
        self.cells = nn.ModuleList(self.cell(*pair, kernel_size) for pair in pairwise(widths))
        # A batch has thousands of places, its statistics are exact: they need no long memory, but an epoch of N6 has a
        # dozen steps only, after which PyTorch's 0.1 would still remember what it started from.
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(hidden_channels, momentum=0.3) for _ in range((layers - 1) * batch_norm)
        )
        self.to_image = nn.Sequential(
            same_conv(hidden_channels, image_shape[0], kernel_size), _ACTIVATIONS[activation]()
        )

    def forward(
        self,
        frames: Tensor,
        lengths: Tensor | None = None,
        observed: Tensor | None = None,
        steps: int = 1,
        state: list[State] | None = None,
    ) -> Output:
        """Predict `steps` frames; from the second on, each prediction is read as if it had been seen.

        Args:
            frames: (B, T, C, H, W) in [0, 1].
            lengths: (B,) valid frames of each sequence, at least 1; None when all are.
            observed: (B, T) bool, False where a frame is missing: it is read as black. None when none is.
            state: what `unroll` returned for the frames before these; None for zeros.

        Returns:
            image (B, steps, C, H, W) float32; embedding (B, hidden_channels), the mean over the map of the top layer's
            last hidden state.
        """
        if observed is not None:
            frames = frames * observed[:, :, None, None, None]
        state = self.unroll(frames, state, lengths)
        embedding = state[-1][0].mean((2, 3))
        images = [self.to_image(state[-1][0])]
        while len(images) < steps:
            state = self.unroll(images[-1][:, None], state)
            images.append(self.to_image(state[-1][0]))
        return Output(torch.stack(images, 1).float(), embedding=embedding.float())

    def unroll(self, frames: Tensor, state: list[State] | None = None, lengths: Tensor | None = None) -> list[State]:
        """Read frames (B, T, C, H, W) from `state` (None: zeros) on; return the state of every layer after the last.

        With `lengths` (B,) a sequence's state stays as it is after its last valid frame.
        """
        device = frames.device.type
        if device != "meta" and torch.is_autocast_enabled(device):
            frames = frames.to(torch.get_autocast_dtype(device))  # or joined with a hidden state it gives float32
        valid = None if lengths is None else valid_frames(lengths, frames.shape[1]).t()  # (T, B)
        sequence = frames.unbind(1)
        after = []
        for layer, cell in enumerate(self.cells):
            current, hidden = None if state is None else state[layer], []
            for t, frame in enumerate(sequence):
                new = cell(frame, current)
                if valid is not None and current is not None:
                    new = tuple(
                        torch.where(valid[t, :, None, None, None], n, c) for n, c in zip(new, current, strict=True)
                    )
                current = new
                hidden.append(current[0])
            after.append(current)
            sequence = self._normalise(layer, hidden, valid) if layer < len(self.norms) else hidden
        return after

    def _normalise(self, layer: int, hidden: list[Tensor], valid: Tensor | None) -> tuple[Tensor, ...]:
        """Batch norm over the frames that count, T times (B, hidden, H, W); the others become zero."""
        maps = torch.cat(hidden)
        if valid is None:
            return self.norms[layer](maps).chunk(len(hidden))
        normalised = torch.zeros_like(maps)
        normalised[valid.flatten()] = self.norms[layer](maps[valid.flatten()])
        return normalised.chunk(len(hidden))

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile what lies between the convolutions: the unrolled whole takes a minute to compile and is no faster."""
        update = torch.compile(self.cells[0].update, *args, **kwargs)
        for cell in self.cells:
            cell.update = update


class ConvLSTM(ConvRecurrent):
    """Stack of `ConvLSTMCell`.

    Args:
        peepholes: let the gates see the cell state; their weights fit frames of `image_shape` alone.
        **recurrent: arguments of `ConvRecurrent`.
    """

    cell = ConvLSTMCell

    def __init__(self, image_shape: ImageShape, *, peepholes: bool = True, **recurrent: Any):
        super().__init__(image_shape, **recurrent)
        if peepholes:
            for cell in self.cells:
                cell.add_peepholes(*image_shape[1:])


class ConvGRU(ConvRecurrent):
    """Stack of `ConvGRUCell`."""

    cell = ConvGRUCell


class ConvRNN(ConvRecurrent):
    """Stack of `ConvRNNCell`."""

    cell = ConvRNNCell
