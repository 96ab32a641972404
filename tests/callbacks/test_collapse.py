"""Collapse: which predictions count as empty, and where that is said."""

import pytest
import torch
from torch import nn

from healing_mnist.batch import Output
from healing_mnist.callbacks.collapse import Collapse, Spread
from healing_mnist.tasks.base import Task


class Predicting(nn.Module):
    def __init__(self, predict):
        super().__init__()
        self.predict = predict

    def forward(self, images):
        return Output(image=self.predict(images), logits=images.flatten(1)[:, :3])


@pytest.mark.parametrize(
    ("predict", "collapsed"),
    [
        (torch.zeros_like, True),
        (lambda images: torch.full_like(images, 0.5), True),
        (lambda images: torch.linspace(0, 1, 36).view(1, 6, 6).expand_as(images), True),  # one picture for all
        (lambda images: 0.5 + 0.15 * images, True),  # the input is half the target: 7.5 % of its spread
        (lambda images: 0.5 + 0.25 * images, False),  # 12.5 %
        (lambda images: images, False),
    ],
)
def test_collapsed(predict, collapsed, run_test, read_csv, monkeypatch, caplog):
    monkeypatch.setattr(Task, "__init__", with_network(Task.__init__, Predicting(predict)))
    callback = Collapse(threshold=0.1)
    run_test(callback)
    assert callback.collapsed is collapsed
    assert read_csv("collapse")[0]["collapsed"] == str(collapsed)
    assert ("collapsed: the predictions are all but empty" in caplog.text) is collapsed
    assert "model.activation" not in caplog.text  # this network has none to try


def with_network(init, network):
    return lambda self, _, **settings: init(self, network, **settings)


def test_spread_is_the_standard_deviation_over_all_rows():
    rows = torch.randn(23, 1, 6, 6, generator=torch.Generator().manual_seed(0)).double()
    spread = Spread()
    for part in rows.split(10):
        spread.add(part)
    assert spread.std() == pytest.approx(rows.var(0, unbiased=False).mean().sqrt().item(), rel=1e-5)
