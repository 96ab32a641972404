"""Healing MNIST, single images: some rotated, some with a white square in the corner (R1 4.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from healing_mnist.batch import Batch
from healing_mnist.checks import Fraction, Positive, PositiveFloat, UserError
from healing_mnist.data.base import Rows, SourceData
from healing_mnist.data.frames import CORNERS, add_squares_, check_compiler, rotate, take, to_float


class HealingImages(SourceData):
    """The images of a source, a random part of them rotated, a random part with a square; plain where both are 0.

    A row is an image: its angle in degrees and the side of its square in pixels, 0 for none. Input and target are the
    same; the attributes are `rotated`, `angle` and `square` (the side), as far as the settings bring them in.

    Args:
        rotation_ratio: share of the images that are rotated.
        max_angle: degrees; angles are uniform in (0, max_angle], counter-clockwise.
        square_ratio: share of the images with a square.
        square_size: its side in pixels; two numbers: drawn for each image from that range, both ends included.
        squares: squares an image has: top-left, then top-right, bottom-left, bottom-right; all of one size.
        independent: who is rotated and who has a square are drawn independently. False: with equal ratios the same
            images get both, and the others neither.
        compile: render by functions that torch.compile makes, on a CPU; they take seconds to make.
        **source: the settings of `SourceData` and `RenderedData`.

    Raises:
        UserError: `compile` without a C++ compiler, an impossible square, and as `SourceData`.
    """

    def __init__(
        self,
        rotation_ratio: Fraction = 0.0,
        max_angle: PositiveFloat = 180.0,
        square_ratio: Fraction = 0.0,
        square_size: Positive | tuple[Positive, Positive] = 5,
        squares: Positive = 1,
        independent: bool = True,
        compile: bool = False,
        **source,
    ):
        super().__init__(**source)
        self.rotation_ratio, self.max_angle = rotation_ratio, max_angle
        self.square_ratio, self.squares, self.independent = square_ratio, squares, independent
        self.compile = compile
        if compile:
            check_compiler("data.compile=true")
        self.smallest, self.largest = (square_size, square_size) if isinstance(square_size, int) else square_size
        side = min(self.image_shape[1:])
        if self.smallest > self.largest:
            raise UserError(f"data.square_size={[*square_size]}: an empty range, the smallest comes first")
        if self.largest > side:
            raise UserError(f"data.square_size={square_size}: larger than the image, at most {side} pixels")
        if squares > CORNERS:
            raise UserError(f"data.squares={squares}: must be in 1..{CORNERS}, an image has no more corners")

    def draw(self, split: str, generator: torch.Generator) -> Rows:
        image = self.members[split]
        # All is drawn whatever the settings, so that a ratio changes which images are touched and nothing else.
        rotation, square, angle, size = torch.rand(4, len(image), generator=generator)
        rotated = rotation < self.rotation_ratio
        with_square = (square if self.independent else rotation) < self.square_ratio
        sizes = self.smallest + (size * (self.largest - self.smallest + 1)).long()
        return {
            "image": image.int(),
            "label": self.labels[image].short(),
            "angle": torch.where(rotated, (1 - angle) * self.max_angle, 0),
            "square": torch.where(with_square, sizes, 0).short(),
        }

    def render(self, rows: Rows, images: Tensor) -> Batch:
        originals, angle, square = take(images, rows["image"]), rows["angle"], rows["square"]
        frames, attributes = to_float(originals), {}
        if self.rotation_ratio > 0:
            attributes |= {"rotated": (angle > 0).long(), "angle": angle}
            frames = torch.where((angle > 0).view(-1, 1, 1, 1), rotate(originals, angle, compile=self.compile), frames)
        if self.square_ratio > 0:
            attributes["square"] = square.long()
            add_squares_(frames, square, self.largest, self.squares, self.compile)
        return Batch(frames, frames, rows["label"].long(), rows["index"], attributes)
