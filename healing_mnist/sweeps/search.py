"""Points chosen by Optuna's tree-structured Parzen estimator (TPE).

The study is a journal in the sweep's folder, which `optuna-dashboard <folder>/optuna.journal` shows and which works on
a network file system too. A trial whose job failed or was killed stays open, so the same command runs it again.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from healing_mnist.checks import UserError
from healing_mnist.files import atomic_write
from healing_mnist.sweeps.definition import Definition, Settings, job_name
from healing_mnist.sweeps.points import Dimension, Point
from healing_mnist.sweeps.results import Run

JOURNAL, TRIAL = "optuna.journal", "trial.json"
log = logging.getLogger(__name__)


def open_storage(journal: Path) -> optuna.storages.BaseStorage:
    optuna.logging.set_verbosity(logging.WARNING)
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    return optuna.storages.JournalStorage(backend)


def drop_torn_line(journal: Path) -> None:
    """Take away a last line that was never finished, as on a full disk: the next one would be written behind it.

    The trial it was about is open again, and its job is found finished.
    """
    content = journal.read_bytes() if journal.exists() else b""
    if content and not content.endswith(b"\n"):
        log.warning("%s: the last line is not whole, and left out", journal)
        os.truncate(journal, content.rfind(b"\n") + 1)


class Search:
    """An endless source of points until `trials` have been tried; iterate over it for the names of their folders."""

    def __init__(self, folder: Path, definition: Definition, dimensions: Sequence[Dimension], settings: Settings):
        self.folder, self.definition, self.trials = folder, definition, settings.trials
        self.dimensions = {dimension.key: dimension for dimension in dimensions}
        self.distributions = {key: distribution(dimension) for key, dimension in self.dimensions.items()}
        drop_torn_line(folder / JOURNAL)
        try:
            self.study = optuna.create_study(
                study_name=definition.name,
                storage=open_storage(folder / JOURNAL),
                direction=definition.direction,
                load_if_exists=True,
            )
            begun = len(self.study.trials)
        except (ValueError, AssertionError, LookupError, TypeError) as error:  # what a line that is wrong may meet with
            raise UserError(
                f"{folder / JOURNAL}: damaged ({type(error).__name__}). fresh=true starts the search over; what it "
                "found until now is in runs.csv beside it"
            ) from error
        there = sum((folder / name / TRIAL).exists() for name in definition.points)
        if there and not begun:
            raise UserError(
                f"{folder / JOURNAL}: holds none of the {there} trials in this folder, and a search goes on from what "
                "it knows; put it back, or start over with fresh=true"
            )
        # A search that goes on must not draw its first points again. Trials still running count as bad ones, so that
        # jobs side by side look in different places.
        seed = settings.sampler_seed + begun
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        self._numbers: dict[str, int] = {}

    def __iter__(self) -> Iterator[str]:
        for trial in self.study.get_trials(states=[TrialState.RUNNING]):
            if trial.params.keys() == self.dimensions.keys():
                yield self._name(trial)
            else:  # the process ended while it was being made
                self.study.tell(trial.number, state=TrialState.FAIL)
        while sum(t.state is not TrialState.FAIL for t in self.study.get_trials(deepcopy=False)) < self.trials:
            trial = self.study.ask(self.distributions)
            yield self._name(self.study.trials[trial.number])

    def _name(self, trial: FrozenTrial) -> str:
        """Note down a trial in the definition and in its job's folder, where `Pruning` finds it."""
        point = {key: dimension.text(trial.params[key]) for key, dimension in self.dimensions.items()}
        name = f"{trial.number:04},{job_name(point)}"
        self._numbers[name] = trial.number
        self.definition.points[name] = point
        self.definition.save(self.folder)
        note = {
            "journal": str((self.folder / JOURNAL).resolve()),
            "study": self.definition.name,
            "trial": trial._trial_id,
        }
        atomic_write(self.folder / name / TRIAL, json.dumps(note))
        return name

    def tell(self, run: Run) -> None:
        """Hand back what a job found."""
        value = run.metrics.get(self.definition.objective)
        if run.state == "finished":
            self.study.tell(self._numbers[run.name], value)
        elif run.state in ("collapsed", "pruned"):
            self.study.tell(self._numbers[run.name], state=TrialState.PRUNED)


def corners(dimensions: Sequence[Dimension]) -> list[Point]:
    """Few points that hold every value of every list and both ends of every interval once."""
    ends = {d.key: d.values or (d.text(d.low), d.text(d.high)) for d in dimensions}
    return [{key: values[i % len(values)] for key, values in ends.items()} for i in range(max(map(len, ends.values())))]


def distribution(dimension: Dimension) -> BaseDistribution:
    """Optuna's word for a dimension; whole numbers in even steps stay numbers."""
    if dimension.low is not None and dimension.integer:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    if dimension.low is not None:
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    try:
        numbers = [int(value) for value in dimension.values]
    except ValueError:
        return CategoricalDistribution(dimension.values)
    steps = {b - a for a, b in pairwise(numbers)}
    if len(steps) == 1 and min(steps) > 0:
        return IntDistribution(numbers[0], numbers[-1], step=steps.pop())
    return CategoricalDistribution(dimension.values)
