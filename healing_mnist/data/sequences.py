"""Healing MNIST sequences: a digit turns by the same angle at every step, a square comes and goes (R1 5.2).

A row of the table is a sequence: base image, angle, length, number of frames with the square and the first of them. Its
frames are drawn from the row when they are needed, each from the base image itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from healing_mnist.batch import Batch, LazyBatch, last_seen, valid_frames
from healing_mnist.checks import Fraction, NonNegative, Positive, UserError
from healing_mnist.data.base import Rows, SourceData
from healing_mnist.data.corruptions import hole_corners, hole_pixels, hole_side
from healing_mnist.data.frames import add_squares_, check_compiler, rotate, take

MANY, MANY_EVAL, PER_IMAGE = 60_000, 10_000, 10  # see `num_sequences` and `num_eval_sequences`


def square_sides(count: Tensor, start: Tensor, time: Tensor, size: int, growth: int) -> Tensor:
    """Side in pixels of the square in frame `time`, 0 where there is none; int64, arguments broadcast.

    The square is there for `count` frames from `start` on. It grows by `growth` each frame up to the middle of them,
    then shrinks the same way: size 3 and growth 2 over five frames are 3, 5, 7, 5, 3, over four 3, 5, 5, 3.
    """
    since_start = time - start
    until_end = count - 1 - since_start
    near = torch.minimum(since_start, until_end)
    return torch.where(near >= 0, size + growth * near, 0)


class HealingSequences(SourceData):
    """Sequences of one rotating digit; the last `horizon` frames are the target, those before them the input.

    Frame t shows the digit rotated by t times the sequence's angle, counter-clockwise, and the square in the top-left
    corner, which does not rotate. Train, validation and test have different base images.

    A batch has `input` (B, T, C, H, W), `target` (B, horizon, C, H, W), `lengths` where sequences differ in length and
    `observed` where frames are missing. `attributes` are digit, angle (degrees), length (all frames), squares (frames
    with the square), start (the first of them; -1 without any), square_size (pixels, in the first target frame),
    square_in_target (1 where any target frame has the square) and, unless part of the input is missing, determined (1
    where the input settles which target frames have the square: no other sequence of this data set has the same square
    in its input and not in its target).

    Args:
        num_sequences: training sequences; None: 60,000, or ten an image where that is less.
        num_eval_sequences: validation and test sequences, each; None: 10,000, or ten an image where that is less.
        length: frames of a sequence, target included; two numbers draw it from that range, both ends included.
        angles: degrees a step, one of them drawn for each sequence.
        squares: frames with the square; `random` draws 1 up to the length.
        square_size: side of the square in its first and last frame, in pixels.
        growth: pixels the square grows each frame to the middle of its time, then shrinks; 0 keeps its size.
        start: first frame with the square. `random` draws it so that all of them fit in the sequence: the target may
            have the last of them, or none. `anywhere` draws any frame: the sequence may end while the square still
            grows, and the target show it in any size.
        horizon: how many frames at the end are targets.
        target: `next`: the frames after the input; `input`: the input itself, undamaged, to be reconstructed.
        missing_area: share of each input frame that is blank: a square hole, at a random place in each frame.
        missing_frames: share of the input frames of each sequence that are missing, rounded down; at random, and
            `observed` says which.
        compile: render by functions that torch.compile makes, on a CPU; they take seconds to make.
        **source: the settings of `SourceData` and `RenderedData`.

    Raises:
        UserError: `compile` without a C++ compiler, settings that no sequence can satisfy, and as `SourceData`.
    """

    def __init__(
        self,
        num_sequences: Positive | None = None,
        num_eval_sequences: Positive | None = None,
        length: Positive | tuple[Positive, Positive] = 6,
        angles: Sequence[float] = (30, 45, 60, 75, 90),
        squares: NonNegative | Literal["random"] = 0,
        square_size: Positive = 3,
        growth: NonNegative = 0,
        start: NonNegative | Literal["random", "anywhere"] = "random",
        horizon: Positive = 1,
        target: Literal["next", "input"] = "next",
        missing_area: Fraction = 0.0,
        missing_frames: Fraction = 0.0,
        compile: bool = False,
        **source,
    ):
        super().__init__(**source)
        self.num_sequences, self.num_eval_sequences = num_sequences, num_eval_sequences
        self.shortest, self.longest = (length, length) if isinstance(length, int) else length
        self.angles = [float(angle) for angle in angles]
        self.squares, self.square_size, self.growth, self.start = squares, square_size, growth, start
        self.horizon, self.target = horizon, target
        self.missing_area, self.missing_frames = missing_area, missing_frames
        first = start if isinstance(start, int) else 0
        self.most = self.longest - first if squares == "random" else squares  # frames with the square
        self.largest = square_size + growth * ((self.most - 1) // 2) if self.most > 0 else 0
        self._check()
        self.hole = hole_side(missing_area, self.image_shape[1:], "data.missing_area")  # in pixels
        self.compile = compile
        if compile:
            check_compiler("data.compile=true")
        self.inputs = self.longest - horizon  # input frames of the longest sequence
        self.determined = self._find_determined()
        self.degrees = torch.tensor(self.angles)  # of a step
        self.input_turns = self.degrees[:, None] * torch.arange(self.inputs)
        self.target_turns = self._find_target_turns()

    @property
    def has_squares(self) -> bool:
        return self.largest > 0

    def _check(self) -> None:
        lengths = f"data.length={self.shortest if self.shortest == self.longest else [self.shortest, self.longest]}"
        if self.shortest > self.longest:
            raise UserError(f"{lengths}: an empty range, the shortest comes first")
        if self.shortest < 2:
            raise UserError(f"{lengths}: must be at least 2, one input frame and the target")
        if not 1 <= self.horizon < self.shortest:
            raise UserError(
                f"data.horizon={self.horizon}: must be in 1..{self.shortest - 1}, the shortest sequence "
                f"({lengths}) needs an input frame"
            )
        if not self.angles:
            raise UserError("data.angles=[]: must name at least one angle in degrees")
        for name in ("missing_area", "missing_frames"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"data.{name}={getattr(self, name)}: must be in [0, 1), something must be left to see")
        self._check_squares(lengths)

    def _check_squares(self, lengths: str) -> None:
        count = 1 if self.squares == "random" else self.squares
        if count > self.shortest:
            raise UserError(f"data.squares={count}: more frames than the shortest sequence has ({lengths})")
        if count and isinstance(self.start, int) and self.start + count > self.shortest:
            raise UserError(
                f"data.start={self.start}: with data.squares={self.squares} must be at most {self.shortest - count}, "
                f"the shortest sequence ends there ({lengths})"
            )
        side = min(self.image_shape[1:])
        if self.largest > side:
            raise UserError(
                f"data.square_size={self.square_size} with data.growth={self.growth}: grows to {self.largest} pixels "
                f"over {self.most} frames, beyond the image's {side}"
            )

    def draw(self, split: str, generator: torch.Generator) -> Rows:
        members = self.members[split]
        rows = self._rows_of(split, len(members))

        def below(limit: Tensor | int) -> Tensor:
            """Uniform integers from 0 up to, not including, `limit`."""
            return (torch.rand(rows, generator=generator, dtype=torch.float64) * limit).long()

        passes = [torch.randperm(len(members), generator=generator) for _ in range(-(-rows // len(members)))]
        image = members[torch.cat(passes)[:rows]]
        angle = below(len(self.angles))
        length = self.shortest + below(self.longest - self.shortest + 1)
        first = self.start if isinstance(self.start, int) else 0
        count = 1 + below(length - first) if self.squares == "random" else torch.full((rows,), self.squares)
        if isinstance(self.start, int):
            start = torch.full((rows,), self.start)
        else:
            start = below(length if self.start == "anywhere" else length - count + 1)
        start = torch.where(count > 0, start, -1)
        short = {"angle": angle, "length": length, "squares": count, "start": start}
        table = {name: column.to(torch.int16) for name, column in short.items()}
        table |= {"image": image.to(torch.int32), "label": self.labels[image].to(torch.int16)}
        if self.missing_frames:
            inputs = length - self.horizon
            order = torch.rand(rows, self.inputs, generator=generator)
            order[~valid_frames(inputs, self.inputs)] = 1.0  # padding comes last, it is never missing
            missing = (self.missing_frames * inputs + 1e-9).floor()
            table["observed"] = order.argsort(1).argsort(1) >= missing[:, None]
        if self.hole:
            chance = torch.rand(rows, self.inputs, 2, generator=generator, dtype=torch.float64)
            table["hole"] = hole_corners(chance, self.hole, self.image_shape[1:]).to(torch.int16)
        return table

    def _rows_of(self, split: str, images: int) -> int:
        wanted = self.num_sequences if split == "train" else self.num_eval_sequences
        return wanted or min(MANY if split == "train" else MANY_EVAL, PER_IMAGE * images)

    def render(self, rows: Rows, images: Tensor) -> Batch:
        angle, length, count, start = (rows[name].long() for name in ("angle", "length", "squares", "start"))
        inputs = length - self.horizon
        clean = partial(self._inputs, rows, images)
        target = self._targets(rows, images) if self.target == "next" else clean()
        ahead = inputs[:, None] + torch.arange(self.horizon, device=images.device)
        squares = square_sides(count[:, None], start[:, None], ahead, self.square_size, self.growth)
        degrees = self._on(images.device, "degrees", self.degrees)
        attributes = {
            "digit": rows["label"].long(),
            "angle": degrees[angle],
            "length": length,
            "squares": count,
            "start": start,
            "square_size": squares[:, 0],
            "square_in_target": (squares > 0).any(1).long(),
        }
        if not self.hole and "observed" not in rows:
            determined = self._on(images.device, "determined", self.determined)
            attributes["determined"] = determined[length, count, start.clamp(min=0)].long()
        return LazyBatch(
            input=lambda: self._damage(rows, clean() if self.target == "next" else target.clone()),
            target=target,
            label=rows["label"].long(),
            index=rows["index"],
            attributes=attributes,
            lengths=inputs if self.shortest < self.longest else None,
            observed=rows.get("observed"),
        )

    def _inputs(self, rows: Rows, images: Tensor) -> Tensor:
        """Undamaged input frames (B, T, C, H, W), zero beyond a sequence's own."""
        time = torch.arange(self.inputs, device=images.device)
        turns = self._on(images.device, "input_turns", self.input_turns)
        frames = self._frames(rows, images, turns, rows["angle"].long(), time)
        if self.shortest < self.longest:
            frames.masked_fill_(~valid_frames(rows["length"] - self.horizon, self.inputs)[..., None, None, None], 0)
        return frames

    def _targets(self, rows: Rows, images: Tensor) -> Tensor:
        """The last frames (B, horizon, C, H, W)."""
        length = rows["length"].long()
        time = length[:, None] + torch.arange(-self.horizon, 0, device=images.device)
        turns = self._on(images.device, "target_turns", self.target_turns)
        which = rows["angle"].long() * (self.longest - self.shortest + 1) + length - self.shortest
        return self._frames(rows, images, turns, which, time)

    def _frames(self, rows: Rows, images: Tensor, turns: Tensor, which: Tensor, time: Tensor) -> Tensor:
        """Row i rotated by each of ``turns[which[i]]`` degrees, with its square at each `time`, (T,) or (B, T)."""
        frames = rotate(take(images, rows["image"]), turns, which, self.compile)
        if self.largest:
            count, start = rows["squares"].long()[:, None], rows["start"].long()[:, None]
            sides = square_sides(count, start, time, self.square_size, self.growth)
            add_squares_(frames, sides, self.largest, compile=self.compile)
        return frames

    def _damage(self, rows: Rows, frames: Tensor) -> Tensor:
        """Blank the holes and the missing frames, in place."""
        if self.hole:
            frames.masked_fill_(hole_pixels(rows["hole"], self.hole, frames.shape[-2:]).unsqueeze(2), 0)
        if "observed" in rows:
            frames.masked_fill_(~rows["observed"][..., None, None, None], 0)
        return frames

    def _find_target_turns(self) -> Tensor:
        """Degrees of the last frames (angles * lengths, horizon), every angle with every length."""
        lengths = torch.arange(self.shortest, self.longest + 1)
        last = lengths[:, None] + torch.arange(-self.horizon, 0)  # (lengths, horizon)
        return (self.degrees[:, None, None] * last).flatten(0, 1)

    def _find_determined(self) -> Tensor:
        """Whether the undamaged input settles where the target has the square: bool by (length, squares, start)."""
        size = self.longest + 1
        possible = torch.tensor([row for row in product(range(size), repeat=3) if self._can_be(*row)])
        _, count, start = possible.t().unsqueeze(-1)
        sides = square_sides(count, start, torch.arange(self.longest), self.square_size, self.growth).tolist()
        ends: dict[tuple, set] = {}  # the squares of an input -> those of the targets it can have
        keys = []
        for (long, *_), row in zip(possible.tolist(), sides, strict=True):
            keys.append(tuple(row[: long - self.horizon]))
            ends.setdefault(keys[-1], set()).add(tuple(side > 0 for side in row[long - self.horizon : long]))
        table = torch.zeros(size, size, size, dtype=torch.bool)
        table[tuple(possible.t())] = torch.tensor([len(ends[key]) == 1 for key in keys])
        return table

    def _can_be(self, length: int, count: int, start: int) -> bool:
        """Whether `draw` may draw such a row."""
        counts = 0 < count <= length if self.squares == "random" else count == self.squares
        starts = start < length if self.start == "anywhere" else start + count <= length
        chosen = start == self.start or not isinstance(self.start, int) or count == 0
        return self.shortest <= length <= self.longest and counts and starts and chosen

    def oracle(self, batch: Batch) -> Tensor:
        """The last frame there is, rotated on by the true angle: (B, horizon, C, H, W). What a perfect sense of the
        rotation alone would predict; a square in that frame turns with it."""
        frames, last = last_seen(batch.input, batch.seen)
        steps = batch.attributes["length"] - self.horizon - last
        turns = batch.attributes["angle"][:, None] * (steps[:, None] + torch.arange(self.horizon, device=last.device))
        return rotate(frames.mul(255).round().to(torch.uint8), turns)
