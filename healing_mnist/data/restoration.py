"""Images to restore: blurred in, clean out. Without blur, plain images to reconstruct or classify (R3, R4)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from healing_mnist.batch import Batch
from healing_mnist.data.base import Rows, SourceData
from healing_mnist.data.frames import take, to_float


class Restoration(SourceData):
    """The images of a source; the input is blurred on the device, the target is clean.

    Args:
        blur: makes the input (B, C, H, W) from the clean images; None takes those themselves.
        **source: the settings of `SourceData` and `RenderedData`.
    """

    def __init__(self, blur: Callable[[Tensor], Tensor] | None = None, **source):
        super().__init__(**source)
        self.blur = blur

    def draw(self, split: str, generator: torch.Generator) -> Rows:
        image = self.members[split]
        return {"image": image, "label": self.labels[image]}

    def render(self, rows: Rows, images: Tensor) -> Batch:
        clean = to_float(take(images, rows["image"]))
        return Batch(self.blur(clean) if self.blur else clean, clean, rows["label"], rows["index"])
