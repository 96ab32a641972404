"""Learning-rate schedules: (optimizer, total_steps) -> the entry Lightning expects."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from torch.optim import Optimizer, lr_scheduler

from healing_mnist.checks import Fraction, Positive, PositiveFloat, Range

NEVER = 10**9  # epochs
Inside = Annotated[float, Range(low=0, high=1, above=True, below=True)]


def one_cycle(optimizer: Optimizer, total_steps: int, warmup: Inside = 0.3) -> dict[str, Any]:
    """Rise to the optimizer's learning rate over the first `warmup` of all steps, then fall to nearly zero.

    Smith and Topin 2018, cosine form, a step per batch. As there, momentum (of Adam and its kin the first beta) goes
    the opposite way meanwhile, from 0.95 to 0.85 and back, whatever the optimizer was given.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    if warmup * total_steps == 1:  # less one step: it would be divided by nothing
        warmup *= 1 + 1e-6
    schedule = lr_scheduler.OneCycleLR(optimizer, max_lr=peaks, total_steps=total_steps, pct_start=warmup)
    return {"scheduler": schedule, "interval": "step"}


def cosine(optimizer: Optimizer, total_steps: int) -> dict[str, Any]:
    """Fall from the optimizer's learning rate to zero along half a cosine, a step per batch."""
    return {"scheduler": lr_scheduler.CosineAnnealingLR(optimizer, total_steps), "interval": "step"}


def step(optimizer: Optimizer, total_steps: int, every: Positive = 10, gamma: Fraction = 0.1) -> dict[str, Any]:
    """Multiply by `gamma` every `every` epochs."""
    return {"scheduler": lr_scheduler.StepLR(optimizer, every, gamma), "interval": "epoch"}


def plateau(
    optimizer: Optimizer,
    total_steps: int,
    monitor: str = "val/loss",
    mode: Literal["min", "max"] = "min",
    patience: Positive = 5,
    factor: Inside = 0.5,
    min_lr: PositiveFloat = 1e-6,
) -> dict[str, Any]:
    """Multiply by `factor` when `monitor` has not fallen (`mode` max: risen) for `patience` epochs of validation.

    `Task` steps it, for Lightning does so too late.
    """
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, mode, factor=factor, patience=patience, min_lr=min_lr)
    return {"scheduler": schedule, "interval": "epoch", "frequency": NEVER, "monitor": monitor, "strict": False}
