"""The two values that travel between data, networks, tasks and callbacks; which frames of a sequence are there."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


def valid_frames(lengths: Tensor, frames: int) -> Tensor:
    """(B, frames) bool: False in the padding behind the ``lengths`` (B,) frames of each sequence."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def last_seen(frames: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """The last of frames (B, T, ...) that `seen` (B, T) bool says is there: (B, ...), and its place in the sequence.

    Where none is, the last of all, and the place is -1.
    """
    place = torch.where(seen, torch.arange(seen.shape[1], device=seen.device), -1).amax(1)
    return frames[torch.arange(len(seen), device=seen.device), place], place


@dataclass
class Batch:
    """What a task is given: one rendered batch, all tensors on one device.

    `input` is what the network sees and `target` what it should produce: images ``(B, C, H, W)`` or sequences
    ``(B, T, C, H, W)``, float32 in [0, 1]. For a plain reconstruction both are the same tensor.
    """

    input: Tensor
    target: Tensor
    label: Tensor  # (B,) int64, the class
    index: Tensor  # (B,) int64, row numbers in the split's table
    attributes: dict[str, Tensor] = field(default_factory=dict)  # name -> (B,), what figures and probes group by
    lengths: Tensor | None = None  # (B,) int64, valid input frames; None when every frame is valid
    observed: Tensor | None = None  # (B, T) bool, False where a frame is missing; None when none is

    def __len__(self) -> int:
        return len(self.label)

    @property
    def seen(self) -> Tensor:
        """(B, T) bool: input frames that are there, neither padding nor missing."""
        frames = torch.ones(self.input.shape[:2], dtype=torch.bool, device=self.input.device)
        if self.lengths is not None:
            frames = frames & valid_frames(self.lengths, frames.shape[1])
        return frames if self.observed is None else frames & self.observed

    @property
    def last(self) -> Tensor:
        """(B, C, H, W): the last input frame of each sequence that is there."""
        return last_seen(self.input, self.seen)[0]


class LazyBatch(Batch):
    """A batch whose `input` is given as a function of no arguments: called at first use, its result kept."""

    _input: Tensor | Callable[[], Tensor]

    @property
    def input(self) -> Tensor:
        if callable(self._input):
            self._input = self._input()
        return self._input

    @input.setter
    def input(self, value: Tensor | Callable[[], Tensor]) -> None:
        self._input = value


@dataclass
class Output:
    """What a network returns: the parts it has, the others None."""

    image: Tensor | None = None  # prediction or reconstruction, in the layout of `Batch.target`
    logits: Tensor | None = None  # (B, classes), unnormalised
    embedding: Tensor | None = None  # (B, latent_dim)
