"""SimVP (Gao et al. 2022, "SimVP: Simpler Yet Better Video Prediction"): the next frames from convolutions alone."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from healing_mnist.batch import Output, last_seen
from healing_mnist.checks import Positive, UserError, Widths
from healing_mnist.networks.autoencoder import ImageShape
from healing_mnist.networks.layers import Sigmoid

NORM_GROUPS = 2  # of a spatial block's group norm, as in the paper's code


class SimVP(nn.Module):
    """Encode each frame, mix all of them in a translator without recurrence, decode the frames that follow.

    Encoder and decoder are convolutions; every second one of the encoder halves the maps, and the decoder mirrors it.
    Between them all frames' maps are stacked as channels and go through a U-Net of `Inception` modules, which makes the
    maps of `horizon` frames at once. Two differences from the paper: there are as many outputs as asked for, not as
    many as inputs, so the skip connection from the encoder's first maps to the decoder's last block hands over those of
    the last frame to all of them; and the image goes through a sigmoid, for targets lie in [0, 1].

    Args:
        image_shape: (channels, height, width) of a frame.
        window: frames of an example, inputs and predictions together.
        horizon: predictions among them; the others, window - horizon, are what the network reads.
        hidden_channels: maps of a frame between the spatial blocks.
        spatial_layers: blocks of the encoder, with strides 1, 2, 1, 2 and so on.
        translator_channels: maps of an `Inception` module.
        translator_layers: modules on each side of the translator.
        kernel_sizes: sides of the kernels of a module's branches, odd.
        groups: of the convolutions in the branches.

    Raises:
        UserError: horizon leaves no frame to read, maps that groups cannot share equally, an even kernel.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        window: Positive = 3,
        horizon: Positive = 1,
        hidden_channels: Positive = 16,
        spatial_layers: Positive = 2,
        translator_channels: Positive = 32,
        translator_layers: Positive = 2,
        kernel_sizes: Widths = (3, 5, 7, 11),
        groups: Positive = 4,
    ):
        if horizon >= window:
            raise UserError(f"model.horizon={horizon}: must be below model.window={window}, which holds inputs too")
        if hidden_channels % NORM_GROUPS:
            raise UserError(
                f"model.hidden_channels={hidden_channels}: must be a multiple of {NORM_GROUPS}, for the norms"
            )
        if translator_channels % (2 * groups) or horizon * hidden_channels % groups:
            raise UserError(
                f"model.groups={groups}: must divide half of model.translator_channels={translator_channels}, and "
                f"model.horizon={horizon} times model.hidden_channels={hidden_channels}"
            )
        if even := [size for size in kernel_sizes if size % 2 == 0]:
            raise UserError(
                f"model.kernel_sizes={list(kernel_sizes)}: {even[0]} must be odd, or maps would change size"
            )
        super().__init__()
        self.inputs, self.horizon = window - horizon, horizon
        strides = [1 + layer % 2 for layer in range(spatial_layers)]
        sizes = [image_shape[1:]]  # of the maps before each block of the encoder, and after the last
        for stride in strides:
            sizes.append([-(-side // stride) for side in sizes[-1]])
        self.encoder = nn.ModuleList(
            spatial_block(image_shape[0] if layer == 0 else hidden_channels, hidden_channels, stride)
            for layer, stride in enumerate(strides)
        )
        self.translator = Translator(
            self.inputs * hidden_channels,
            translator_channels,
            horizon * hidden_channels,
            translator_layers,
            kernel_sizes,
            groups,
        )
        self.decoder = nn.ModuleList(
            spatial_block(hidden_channels * (1 + (layer == 0)), hidden_channels, strides[layer], to=sizes[layer])
            for layer in reversed(range(spatial_layers))
        )
        self.to_image = nn.Sequential(nn.Conv2d(hidden_channels, image_shape[0], 1), Sigmoid())

    def forward(
        self, frames: Tensor, lengths: Tensor | None = None, observed: Tensor | None = None, steps: int = 1
    ) -> Output:
        """Predict `steps` frames, `horizon` at once; beyond these, predictions are read as if they had been seen.

        A sequence shorter than the inputs stands at their end. The maps of the frames it lacks, and of missing ones,
        are zero.

        Args:
            frames: (B, T, C, H, W) in [0, 1], T at most window - horizon.
            lengths: (B,) valid frames of each sequence, at least 1; None when all are.
            observed: (B, T) bool, False where a frame is missing; None when none is.

        Returns:
            image (B, steps, C, H, W) float32 in [0, 1]; embedding (B, horizon * hidden_channels), the mean over the map
            of what the translator makes.

        Raises:
            UserError: more frames than the network reads.
        """
        if frames.shape[1] > self.inputs:
            window = self.inputs + self.horizon
            raise UserError(
                f"model.window={window}: reads {self.inputs} frames (model.horizon={self.horizon} are predicted), the "
                f"data give {frames.shape[1]}; must be at least {frames.shape[1] + self.horizon}"
            )
        frames, seen = aligned(frames, lengths, observed, self.inputs)
        images, embedding = self._next(frames, seen)
        while images.shape[1] < steps:
            read = torch.cat((frames, images), 1)[:, -self.inputs :]
            there = torch.cat((seen, seen.new_ones(images.shape[:2])), 1)[:, -self.inputs :]
            images = torch.cat((images, self._next(read, there)[0]), 1)
        return Output(images[:, :steps], embedding=embedding)

    def _next(self, frames: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, inputs, C, H, W), seen (B, inputs) -> images (B, horizon, C, H, W) and embedding, float32."""
        maps = first = self.encoder[0](frames.flatten(0, 1))
        for block in self.encoder[1:]:
            maps = block(maps)
        maps = maps.unflatten(0, seen.shape) * seen[:, :, None, None, None]
        translated = self.translator(maps.flatten(1, 2))
        skipped, _ = last_seen(first.unflatten(0, seen.shape), seen)
        maps = translated.unflatten(1, (self.horizon, -1)).flatten(0, 1)
        for block in self.decoder[:-1]:
            maps = block(maps)
        maps = self.decoder[-1](torch.cat((maps, skipped.repeat_interleave(self.horizon, 0)), 1))
        images = self.to_image(maps).unflatten(0, (-1, self.horizon))
        return images.float(), translated.mean((2, 3)).float()


def aligned(frames: Tensor, lengths: Tensor | None, observed: Tensor | None, inputs: int) -> tuple[Tensor, Tensor]:
    """Sequences (B, T, C, H, W) moved to the end of `inputs` frames; bool (B, inputs), False where there is no frame.

    What is not there is black.
    """
    count, time = frames.shape[:2]
    ends = torch.full((count,), time, device=frames.device) if lengths is None else lengths
    place = torch.arange(inputs, device=frames.device) - inputs + ends[:, None]  # below zero: before the sequence
    row, seen = torch.arange(count, device=frames.device)[:, None], place >= 0
    place = place.clamp(min=0)
    if observed is not None:
        seen = seen & observed[row, place]
    return frames[row, place] * seen[:, :, None, None, None], seen


def spatial_block(before: int, after: int, stride: int, to: tuple[int, int] | None = None) -> nn.Sequential:
    """Convolution of stride 1 or 2, norm, activation; with `to` transposed, to maps of that height and width."""
    if to is None:
        convolution = nn.Conv2d(before, after, 3, stride, padding=1)
    else:
        extra = [(side - 1) % stride for side in to]  # the one row that a halving of an even side took
        convolution = nn.ConvTranspose2d(before, after, 3, stride, padding=1, output_padding=extra)
    return nn.Sequential(convolution, nn.GroupNorm(NORM_GROUPS, after), nn.LeakyReLU(0.2))


class Translator(nn.Module):
    """A U-Net of `Inception` modules without halvings: maps (B, in, H, W) -> (B, out, H, W).

    Args:
        in_channels, channels, out_channels: maps read, of every module between, and made.
        layers: modules down and as many up; those up, but the first, also read what their mirror image made.
        kernel_sizes, groups: of every module.
    """

    def __init__(
        self,
        in_channels: Positive,
        channels: Positive,
        out_channels: Positive,
        layers: Positive,
        kernel_sizes: Widths,
        groups: Positive,
    ):
        super().__init__()
        down = pairwise([in_channels, *[channels] * layers])
        up = pairwise([*[channels] * layers, out_channels])
        self.down = nn.ModuleList(Inception(*pair, channels // 2, kernel_sizes, groups) for pair in down)
        self.up = nn.ModuleList(
            Inception(before * (1 + (i > 0)), after, channels // 2, kernel_sizes, groups)
            for i, (before, after) in enumerate(up)
        )

    def forward(self, maps: Tensor) -> Tensor:
        made = []
        for module in self.down:
            maps = module(maps)
            made.append(maps)
        maps = self.up[0](maps)
        for module, skipped in zip(self.up[1:], reversed(made[:-1]), strict=True):
            maps = module(torch.cat((maps, skipped), 1))
        return maps


class Inception(nn.Module):
    """The sum of grouped convolutions with kernels of several sizes, on maps narrowed first (Gao et al. 2022, 3.2).

    Args:
        in_channels, out_channels: maps read and made.
        narrow: maps after the 1x1 convolution, which all branches read.
        kernel_sizes: one branch each, odd.
        groups: of convolution and norm in each branch; they divide both.
    """

    def __init__(
        self, in_channels: Positive, out_channels: Positive, narrow: Positive, kernel_sizes: Widths, groups: Positive
    ):
        super().__init__()
        self.narrow = nn.Conv2d(in_channels, narrow, 1)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(narrow, out_channels, size, padding=size // 2, groups=groups),
                nn.GroupNorm(groups, out_channels),
                nn.LeakyReLU(0.2),
            )
            for size in kernel_sizes
        )

    def forward(self, maps: Tensor) -> Tensor:
        narrow = self.narrow(maps)
        return sum(branch(narrow) for branch in self.branches)
