"""A tiny data set, network and task, and a trainer that only tests: what callbacks are tried on."""

import csv

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torchmetrics import MetricCollection

from healing_mnist.batch import Batch, Output
from healing_mnist.data.base import RenderedData
from healing_mnist.tasks.base import Task


class TinyData(RenderedData):
    """Random 6x6 images of three classes with an angle; the input is the target made darker."""

    image_shape, num_classes = (1, 6, 6), 3
    count = 23

    def load(self):
        return torch.randint(256, (self.count, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))

    def draw(self, split, generator):
        return {
            "image": torch.arange(self.count),
            "label": torch.randint(3, (self.count,), generator=generator),
            "angle": 180 * torch.rand(self.count, generator=generator),
        }

    def render(self, rows, images):
        target = images[rows["image"]].float() / 255
        return Batch(0.5 * target, target, rows["label"], rows["index"], {"angle": rows["angle"]})


class TwoTests(TinyData):
    test_splits = ("near", "far")


class Plain(TinyData):
    def render(self, rows, images):
        batch = super().render(rows, images)
        batch.input = batch.target
        return batch


class TinyNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(36, 4)

    def forward(self, images):
        embedding = self.layer(images.flatten(1))
        return Output(image=images * 0.9, logits=embedding[:, :3], embedding=embedding)


class TinyTask(Task):
    def losses(self, batch, output):
        return {"loss": nn.functional.cross_entropy(output.logits, batch.label)}

    def make_scores(self, final):
        return MetricCollection({})

    def update_scores(self, scores, batch, output):
        pass


@pytest.fixture
def network():
    """The network that `run_test` tests, with the same weights."""
    return TinyNetwork()


@pytest.fixture
def two_tests():
    """The tiny data with two test splits, near and far."""
    return TwoTests(eval_batch_size=10)


@pytest.fixture
def plain_data():
    """The tiny data with the target itself as input."""
    return Plain(eval_batch_size=10)


@pytest.fixture
def run_test(tmp_path):
    """Call with callbacks (and a data set) to run trainer.test; returns (trainer, data set)."""

    def run(*callbacks, data=None, fit=False):
        data = data or TinyData(batch_size=8, eval_batch_size=10)
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=1,
            default_root_dir=tmp_path,
            callbacks=list(callbacks),
            logger=TensorBoardLogger(tmp_path, name="", version="tensorboard"),
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )
        task = TinyTask(TinyNetwork(), channels_last=False)
        if fit:
            trainer.fit(task, data)
        trainer.test(task, data, verbose=False)
        return trainer, data

    return run


@pytest.fixture
def read_csv(tmp_path):
    """Rows of a figure's CSV as dicts of text."""

    def read(name):
        with (tmp_path / "figures" / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    return read


@pytest.fixture
def tags(tmp_path):
    """Call for the image tags TensorBoard holds."""

    def read():
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path / "tensorboard"))
        events.Reload()
        return events.Tags()["images"]

    return read
