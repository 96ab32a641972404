import math

import pytest
import torch

from healing_mnist.config import compose
from healing_mnist.tasks.schedules import cosine, one_cycle, plateau, step


@pytest.mark.parametrize(("mode", "expected"), [("max", [1, 1, 1, 1]), ("min", [1, 1, 0.5, 0.25])])
def test_plateau_knows_which_way_is_better(mode, expected):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = plateau(optimizer, 10, monitor="val/accuracy", mode=mode, patience=1)["scheduler"]
    schedule.patience = 0
    rates = []
    for accuracy in (0.5, 0.6, 0.7, 0.8):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step(accuracy)
    assert rates == expected


@pytest.mark.parametrize("total", [1, 2, 10, 100])
def test_one_cycle_rises_in_any_number_of_steps(total):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = one_cycle(optimizer, total, warmup=0.1)["scheduler"]
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(total - 1):
        optimizer.step()
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert max(rates) <= 1.0
    if total == 100:
        assert rates.index(max(rates)) == 9


def test_plateau_follows_the_objective():
    settings = compose(["experiment=embedding_classifier", "scheduler=plateau"]).scheduler
    assert (settings.monitor, settings.mode) == ("val/accuracy", "max")


def rates(entry, optimizer, count):
    found = []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        entry["scheduler"].step()
    return found


def test_cosine_falls_with_every_step_and_step_falls_with_some_epochs():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    entry = cosine(optimizer, 4)
    assert rates(entry, optimizer, 4) == pytest.approx([(1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)])
    assert entry["interval"] == one_cycle(optimizer, 4)["interval"] == "step"
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    entry = step(optimizer, 100, every=2, gamma=0.5)
    assert rates(entry, optimizer, 5) == [1, 1, 0.5, 0.5, 0.25]
    assert entry["interval"] == "epoch"


def test_plateau_falls_by_its_factor_and_not_below_its_end():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = plateau(optimizer, 10, patience=1, factor=0.1, min_lr=0.05)["scheduler"]
    for loss in (1.0, 2.0, 2.0, 2.0, 2.0, 2.0):
        schedule.step(loss)
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert schedule.factor == 0.1
