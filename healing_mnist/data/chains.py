"""Sequences of a digit that turns, moves and changes brightness under autoregressive chains: table and frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from healing_mnist.checks import Fraction, NonNegativeFloat
from healing_mnist.data import counter
from healing_mnist.data.base import Rows
from healing_mnist.data.frames import take, to_float

CANVAS = 36  # pixels the units of a table refer to: the same table is rendered at any size
DIGIT = 28  # side of the base image on that canvas
ROOM = (CANVAS - DIGIT) / 2  # how far a digit moves from the middle: turned any way, it stays on the canvas
DIMMEST = 0.5  # brightness stays between this and 1
JUMP_ANGLE = (60.0, 180.0)  # degrees an anomalous transition turns, either way
JUMP_SHIFT = 3.0  # pixels it moves, in any direction


@dataclass(frozen=True)
class Chain:
    """How much a quantity changes from frame to frame: an autoregressive process of order one.

    change_t = persistence * change_{t-1} + sqrt(1 - persistence^2) * size * eps_t, with eps_t standard normal and
    change_1 ~ N(0, size^2): every change has standard deviation `size`, neighbours have correlation `persistence`.
    """

    persistence: Fraction
    size: NonNegativeFloat

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Changes, float32 `shape`, time last."""
        noise = torch.randn(shape, generator=generator)
        changes = [noise[..., 0]]
        for t in range(1, shape[-1]):
            changes.append(self.persistence * changes[-1] + math.sqrt(1 - self.persistence**2) * noise[..., t])
        return self.size * torch.stack(changes, dim=-1)


def draw_sequences(
    image: Tensor,
    frames: int,
    rotation: Chain,
    translation: Chain,
    brightness: Chain,
    anomaly_rate: float,
    generator: torch.Generator,
) -> Rows:
    """A table of sequences, one for each base image.

    Every sequence starts as the base image is: upright, in the middle, full brightness. Position and brightness turn
    back where they would leave their range. An anomalous transition adds a jump to rotation and position; the chains go
    on from there.

    Args:
        image: (S,) base images.
        frames: frames T of a sequence.
        anomaly_rate: probability of a transition to be anomalous.

    Returns:
        `image` (S,), `noise_seed` (S,), `rotation` (S, T) in degrees, `shift` (S, T, 2) right and down in pixels of a
        36-pixel canvas, `brightness` (S, T) in [0.5, 1], `anomalous` (S, T-1) bool.
    """
    count, steps = len(image), frames - 1
    turn = rotation.draw((count, steps), generator)
    move = translation.draw((count, 2, steps), generator).transpose(1, 2)
    dim = brightness.draw((count, steps), generator)

    anomalous = torch.rand(count, steps, generator=generator) < anomaly_rate
    chance = torch.rand(count, steps, 3, generator=generator)
    low, high = JUMP_ANGLE
    turn = turn + anomalous * (low + (high - low) * chance[..., 0]) * torch.where(chance[..., 1] < 0.5, -1, 1)
    direction = 2 * math.pi * chance[..., 2]
    jump = JUMP_SHIFT * torch.stack((direction.cos(), direction.sin()), dim=-1)
    move = move + anomalous[..., None] * jump
    return {
        "image": image,
        "noise_seed": torch.randint(2**62, (count,), generator=generator),
        "rotation": _from_zero(turn),
        "shift": reflect(_from_zero(move), -ROOM, ROOM),
        "brightness": reflect(1 + _from_zero(dim), DIMMEST, 1.0),
        "anomalous": anomalous,
    }


def _from_zero(changes: Tensor) -> Tensor:
    """Changes (S, T-1, ...) to the walk they make from zero (S, T, ...)."""
    return torch.cat((torch.zeros_like(changes[:, :1]), changes.cumsum(1)), dim=1)


def reflect(walk: Tensor, low: float, high: float) -> Tensor:
    """Fold a walk into [low, high] as if both ends were mirrors; within the range it stays as it is."""
    span = high - low
    if span == 0:
        return torch.full_like(walk, low)
    return high - ((walk - low) % (2 * span) - span).abs()


def render_sequences(rows: Rows, images: Tensor, size: int, noise: float) -> Tensor:
    """Frames (S, T, C, size, size), float32 in [0, 1], on the device of `images`.

    Each frame is drawn from the base image itself by one affine transform with bilinear interpolation, so no blur
    builds up along a sequence; then noise is added and the sum clipped. A pure function of `rows`: see `counter`.

    Args:
        rows: columns of `draw_sequences`.
        images: (N, C, H, W) uint8.
        noise: standard deviation of the Gaussian noise.
    """
    count, frames = rows["rotation"].shape
    original = to_float(take(images, rows["image"])).repeat_interleave(frames, 0)
    shift = rows["shift"].flatten(0, 1) * (size / CANVAS)
    clean = warp(original, rows["rotation"].flatten(), shift, size)
    clean = clean.mul_(rows["brightness"].reshape(-1, 1, 1, 1)).view(count, frames, *clean.shape[1:])
    if noise:
        clean.add_(counter.normal(rows["noise_seed"], clean.shape[1:]), alpha=noise)
    return clean.clamp_(0, 1)


def clipped_mean(clean: Tensor, noise: float) -> Tensor:
    """What frames with Gaussian noise clipped to [0, 1] are on average: the mean of a censored normal distribution."""
    if noise == 0:
        return clean
    low, high = -clean / noise, (1 - clean) / noise
    density = [(-0.5 * z * z).exp() / math.sqrt(2 * math.pi) for z in (low, high)]
    below, above = torch.special.ndtr(low), torch.special.ndtr(-high)
    return clean * (1 - below - above) + noise * (density[0] - density[1]) + above


def warp(images: Tensor, angle: Tensor, shift: Tensor, size: int) -> Tensor:
    """Turn images about their middle, scale them to 28/36 of a square canvas and move them on it.

    Args:
        images: (N, C, H, W).
        angle: (N,) degrees, positive = counter-clockwise.
        shift: (N, 2) pixels of the canvas, right and down.
        size: side of the canvas.

    Returns:
        (N, C, size, size), zero where the image does not reach.
    """
    height, width = images.shape[-2:]
    zoom = DIGIT * size / (CANVAS * max(height, width))
    cos, sin = torch.deg2rad(angle).cos() / zoom, torch.deg2rad(angle).sin() / zoom
    # From a place on the canvas to the place in the image it shows, both in pixels from the middle.
    back = torch.stack((cos, -sin, sin, cos), dim=-1).view(-1, 2, 2)
    place = torch.cat((back * (size / 2), -back @ shift[..., None]), dim=-1)
    half = torch.tensor([width / 2, height / 2], device=images.device)[:, None]  # affine_grid's unit is half an image
    grid = F.affine_grid(place / half, [*images.shape[:2], size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
