"""What all tasks share: which split a loss belongs to, how batches count, what seeds an epoch."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import nn
from torchmetrics import MetricCollection

from healing_mnist.batch import Batch, Output
from healing_mnist.data.base import RenderedData
from healing_mnist.data.sequences import HealingSequences
from healing_mnist.tasks.base import Task
from healing_mnist.tasks.next_frame import SequenceReconstruction

BRIGHTNESS = {"train": 10, "val": 20, "dim": 30, "bright": 40}


class Brightness(RenderedData):
    """Images of one brightness in each split."""

    image_shape, num_classes, test_splits = (1, 4, 4), 2, ("dim", "bright")

    def load(self):
        return torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(256, 1, 4, 4)

    def draw(self, split, generator):
        return {"image": torch.full((5,), BRIGHTNESS[split])}

    def render(self, rows, images):
        image = images[rows["image"]].float()
        return Batch(image, image, rows["image"], rows["index"])


class Mean(Task):
    def losses(self, batch, output):
        return {"loss": batch.input.mean() + 0 * output.image.mean()}

    def make_scores(self, final):
        return MetricCollection({})

    def update_scores(self, scores, batch, output):
        pass


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def forward(self, frames, *_):
        return Output(image=frames * self.factor)


@pytest.fixture
def trainer(tmp_path):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, num_sanity_val_steps=0, **quiet)


def test_every_split_has_its_own_name(trainer):
    task, data = Mean(Scaled(), channels_last=False), Brightness(batch_size=2, eval_batch_size=2)
    trainer.fit(task, data)
    assert {key: float(trainer.callback_metrics[key]) for key in ("train/loss", "val/loss")} == {
        "train/loss": 10,
        "val/loss": 20,
    }
    found = {key: value for part in trainer.test(task, data, verbose=False) for key, value in part.items()}
    assert found == {"test/dim/loss": 30, "test/bright/loss": 40}


def test_frames_of_a_reconstruction_count_alike_in_whatever_batch(trainer):
    data = HealingSequences(num_sequences=20, num_eval_sequences=31, target="input", length=(2, 6), eval_batch_size=4)
    data.setup()
    batch = data.batch("test", torch.arange(31))
    valid = torch.arange(batch.target.shape[1]) < batch.lengths[:, None]
    expected = (0.5 * batch.input - batch.target)[valid].square().mean()
    task = SequenceReconstruction(Scaled(), channels_last=False)
    found = trainer.test(task, data, verbose=False)[0]
    assert found["test/loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_dropout_differs_between_epochs_seeds_and_processes():
    def first_draw(seed, epoch, rank):
        data = SimpleNamespace(seed=seed, start_epoch=lambda epoch: None)
        trainer = SimpleNamespace(datamodule=data)
        Task.on_train_epoch_start(SimpleNamespace(trainer=trainer, current_epoch=epoch, global_rank=rank))
        return torch.rand(1).item()

    cases = [(seed, epoch, rank) for seed in (0, 1) for epoch in (0, 1, 2) for rank in (0, 1)]
    assert len({first_draw(*case) for case in cases}) == len(cases)
    assert first_draw(1, 2, 1) == first_draw(1, 2, 1)
