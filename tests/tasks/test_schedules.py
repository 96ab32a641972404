import pytest
import torch

from healing_mnist.config import compose
from healing_mnist.tasks.schedules import one_cycle, plateau


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
