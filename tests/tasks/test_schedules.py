import pytest
import torch

from healing_mnist.config import compose
from healing_mnist.tasks.schedules import plateau


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


def test_plateau_follows_the_objective():
    settings = compose(["experiment=embedding_classifier", "scheduler=plateau"]).scheduler
    assert (settings.monitor, settings.mode) == ("val/accuracy", "max")
