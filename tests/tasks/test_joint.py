"""The losses of the joint task on a batch small enough to do by hand."""

import math

import pytest
import torch
from torch import nn

from healing_mnist.batch import Batch, Output
from healing_mnist.checks import UserError
from healing_mnist.tasks.classification import cross_entropy
from healing_mnist.tasks.joint import Joint


class Constant(nn.Module):
    """Predicts grey and no preference, so that both losses are known."""

    def __init__(self):
        super().__init__()
        self.grey = nn.Parameter(torch.tensor(0.5))

    def forward(self, images):
        return Output(image=images * 0 + self.grey, logits=torch.zeros(len(images), 10) + self.grey)


def batch(value=0.0):
    images = torch.full((4, 1, 2, 2), value)
    return Batch(images, images, torch.arange(4), torch.arange(4))


def losses(task, **options):
    data = batch(**options)
    return {name: float(value) for name, value in task.losses(data, task(data)).items()}


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_fixed_weight(weight):
    found = losses(Joint(Constant(), reconstruction_weight=weight))
    assert found["reconstruction"] == pytest.approx(0.25)
    assert found["classification"] == pytest.approx(math.log(10))
    assert found["loss"] == pytest.approx(weight * 0.25 + (1 - weight) * math.log(10))


def test_dynamic_weight_uses_the_losses_of_the_step_before():
    task = Joint(Constant(), reconstruction_weight="dynamic").train()
    first, second = losses(task, value=0.0), losses(task, value=1.5)
    assert first["weight"] == 0.5
    expected = math.log(10) / (0.25 + math.log(10))  # from the first step, where the reconstruction loss was 0.25
    assert second["reconstruction"] == pytest.approx(1.0)
    assert second["weight"] == pytest.approx(expected)
    assert second["loss"] == pytest.approx(expected * 1.0 + (1 - expected) * math.log(10))


def test_validation_leaves_the_dynamic_weight_alone():
    task = Joint(Constant(), reconstruction_weight="dynamic").eval()
    losses(task)
    assert float(task.weight) == 0.5


def test_softmax_before_loss_cannot_fall_below_its_floor():
    """-log(e / (e + 9)) = 1.46 for a prediction that is certain and right."""
    logits = torch.full((3, 10), -50.0)
    logits[torch.arange(3), torch.arange(3)] = 50.0
    floor = -math.log(math.e / (math.e + 9))
    assert float(cross_entropy(logits, torch.arange(3), softmax_before_loss=True)) == pytest.approx(floor)
    assert float(cross_entropy(logits, torch.arange(3))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("weight", [-0.1, 1.1])
def test_weight_outside_its_range_is_refused(weight):
    with pytest.raises(UserError, match=rf"task\.reconstruction_weight={weight}: must be in \[0, 1\]"):
        Joint(Constant(), reconstruction_weight=weight)


def test_the_settings_of_the_losses_are_heard():
    data = batch()
    certain = Output(image=data.target + 0.5, logits=100 * torch.eye(10)[data.label])
    found = Joint(Constant(), loss="l1", softmax_before_loss=True).losses(data, certain)
    assert float(found["reconstruction"]) == pytest.approx(0.5)
    assert float(found["classification"]) == pytest.approx(-math.log(math.e / (math.e + 9)))


def test_the_dynamic_weight_travels_in_the_checkpoint():
    task = Joint(Constant(), reconstruction_weight="dynamic").train()
    losses(task)
    again = Joint(Constant(), reconstruction_weight="dynamic")
    again.load_state_dict(task.state_dict())
    assert float(again.weight) == float(task.weight) != 0.5
