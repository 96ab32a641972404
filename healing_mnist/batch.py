"""The two values that travel between data, networks, tasks and callbacks."""

from dataclasses import dataclass, field

from torch import Tensor


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


@dataclass
class Output:
    """What a network returns: the parts it has, the others None."""

    image: Tensor | None = None  # prediction or reconstruction, in the layout of `Batch.target`
    logits: Tensor | None = None  # (B, classes), unnormalised
    embedding: Tensor | None = None  # (B, latent_dim)
