"""Parts a user might write, and the mistakes in them: named by `_target_` in tests."""

import lightning as L
import torch
from torch import nn

from healing_mnist.batch import Batch, Output
from healing_mnist.data.base import RenderedData
from healing_mnist.tasks.reconstruction import Reconstruction


class Ramps(RenderedData):
    """Images of 12x12 that brighten from left to right, made here: no source."""

    image_shape = (1, 12, 12)
    num_classes = 2

    def load(self):
        return torch.arange(0, 240, 20, dtype=torch.uint8).expand(20, 1, 12, 12).contiguous()

    def draw(self, split, generator):
        number = {"train": torch.arange(12), "val": torch.arange(12, 16)}.get(split, torch.arange(16, 20))
        return {"image": number, "label": number % 2}

    def render(self, rows, images):
        frames = images[rows["image"]].float() / 255
        return Batch(frames, frames, rows["label"], rows["index"])


class NoTable(Ramps):
    def draw(self, split, generator):
        super().draw(split, generator)


class Uneven(Ramps):
    def draw(self, split, generator):
        return super().draw(split, generator) | {"label": torch.zeros(3, dtype=torch.long)}


class NoTest(Ramps):
    def draw(self, split, generator):
        rows = super().draw(split, generator)
        return {name: column[:0] for name, column in rows.items()} if split == "test" else rows


class Tuples(Ramps):
    def render(self, rows, images):
        batch = super().render(rows, images)
        return batch.input, batch.target


class Bytes(Ramps):
    def render(self, rows, images):
        batch = super().render(rows, images)
        batch.input = batch.input * 255
        return batch


class NaNs(Ramps):
    def render(self, rows, images):
        batch = super().render(rows, images)
        batch.target = batch.target / 0
        return batch


class NoImages(Ramps):
    def render(self, rows, images):
        return Batch(None, None, rows["label"], rows["index"])


class Wide(Ramps):
    image_shape = (1, 12, 24)


class Slip(Ramps):
    def render(self, rows, images):
        return Batch(images[rows["picture"]], images, rows["label"], rows["index"])


class Net(nn.Module):
    """What it returns is said below."""

    def __init__(self, image_shape=(1, 12, 12)):
        super().__init__()
        self.conv = nn.Conv2d(image_shape[0], 1, 3, padding=1)

    def forward(self, images):
        return self.made(self.conv(images))

    def made(self, images):
        return Output(image=images)


class Bare(Net):
    def made(self, images):
        return images


class Smaller(Net):
    def made(self, images):
        return Output(image=images[..., ::2])


class OneNumber(Net):
    def made(self, images):
        return Output(image=images.mean((1, 2, 3), keepdim=True))


class OneLogit(Net):
    def made(self, images):
        return Output(image=images, logits=images[:, 0, 0, :1])


class MapEmbedding(Net):
    def made(self, images):
        return Output(image=images, embedding=images)


class Endless(Net):
    def made(self, images):
        return Output(image=images / 0)


class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class Breaks(Net):
    def __init__(self):
        super().__init__()
        self.more = self.there_is_none


class NoModule:
    pass


class NoLoss(Reconstruction):
    def losses(self, batch, output):
        return {"huber": super().losses(batch, output)["loss"]}


class BareLoss(Reconstruction):
    def losses(self, batch, output):
        return super().losses(batch, output)["loss"]


class LossOfEach(Reconstruction):
    def losses(self, batch, output):
        return {"loss": (output.image - batch.target).square().mean((1, 2, 3))}


class NumberBeside(Reconstruction):
    def losses(self, batch, output):
        return super().losses(batch, output) | {"beside": 0.5}


class Annealed(Reconstruction):
    def losses(self, batch, output):
        return {"loss": super().losses(batch, output)["loss"] * (1 + self.current_epoch)}


class ScoreSlip(Reconstruction):
    def update_scores(self, scores, batch, output):
        scores.update(output.picture, batch.target)


class FinalSlip(Reconstruction):
    def make_scores(self, final):
        return super().make_scores(final) if not final else self.nothing


class BreaksToo(L.Callback):
    def __init__(self):
        raise ValueError("it cannot be made") from KeyError("why")
