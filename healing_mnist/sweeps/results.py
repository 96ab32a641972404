"""What the jobs of a sweep found, read from their folders."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal, get_args

import yaml

from healing_mnist.checks import UserError
from healing_mnist.config import compose, difference, plain
from healing_mnist.files import atomic_write, read_metrics
from healing_mnist.sweeps.definition import LOADER, Definition
from healing_mnist.sweeps.points import REPEATS, SEED, value_of

FAILED = "failed.txt"  # in a job's folder: why it failed when it ran last
State = Literal["finished", "collapsed", "pruned", "failed", "unfinished"]
STATES: tuple[State, ...] = get_args(State)  # the furthest first


@dataclass
class Run:
    """One job: its point, its metrics, and how far it came. Only `finished` ones count in tables and plots."""

    name: str
    point: dict[str, Any]
    state: State = "unfinished"
    metrics: dict[str, float] = field(default_factory=dict)  # of the test set, and of validation at the best epoch
    epoch: float | None = None  # the best one on validation
    message: str = ""  # why it failed


@dataclass
class Setting:
    """One row of the table: the runs that differ in seed and fold only."""

    point: dict[str, Any]
    runs: list[Run]

    def values(self, metric: str) -> list[float]:
        return [run.metrics[metric] for run in self.runs if run.state == "finished" and metric in run.metrics]

    def mean(self, metric: str) -> float | None:
        values = self.values(metric)
        return mean(values) if values else None

    def spread(self, metric: str) -> float | None:
        """Standard deviation over the repetitions (with n - 1); None for a single run."""
        return spread(self.values(metric))

    def count(self, state: State) -> int:
        return sum(run.state == state for run in self.runs)


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation (with n - 1); None of a single value, NaN where a value is not finite."""
    if len(values) < 2:
        return None
    return stdev(values) if all(map(math.isfinite, values)) else math.nan


class Results:
    """The runs of one sweep, in the order of its points.

    Args:
        folder: the sweep's.
        definition: what lies in it.
        where: only the runs with these values, of settings that vary.
        evaluation: folder below each run, whose metrics count instead of the run's own.
    """

    def __init__(
        self, folder: Path, definition: Definition, where: Mapping[str, Any] | None = None, evaluation: str = ""
    ):
        self.folder, self.definition, self.evaluation = folder, definition, evaluation
        runs = {name: self._read(name) for name in definition.points}
        wanted = {key: str(value) for key, value in (where or {}).items()}
        fixed = (override.split("=", 1) for override in definition.fixed if "=" in override)
        shared = {key: value_of(value) for key, value in fixed}
        self.runs = {
            name: run
            for name, run in runs.items()
            if all(str(run.point.get(k, shared.get(k, v))) == v for k, v in wanted.items())
        }

    @classmethod
    def load(cls, folder: Path, where: Mapping[str, Any] | None = None, evaluation: str = "") -> Results:
        """Read a sweep's folder. Raises UserError when it is none."""
        return cls(folder, Definition.load(folder), where, evaluation)

    @classmethod
    def found(
        cls, folder: Path, pattern: str, where: Mapping[str, Any] | None = None, evaluation: str = ""
    ) -> Results | None:
        """Finished runs of train.py whose folders match a glob below `folder`; None when there are none.

        Only experiments as they are: a run with other settings than its source of images and its seed is left out.
        """
        configs = {
            place.parent.relative_to(folder).as_posix(): config
            for place in sorted(folder.glob(f"{pattern}/metrics.json"))
            if _as_it_is(config := yaml.load((place.parent / "config.yaml").read_text(), LOADER))
        }
        if not configs:
            return None
        points = {
            name: {"experiment": cfg["name"], "data.source": cfg["data"].get("source", "null"), SEED: str(cfg["seed"])}
            for name, cfg in configs.items()
        }
        first = next(iter(configs.values()))
        kept = {"objective": first["objective"], "direction": first["direction"]}
        varied = dict.fromkeys(next(iter(points.values())), "")
        return cls(
            folder, Definition(pattern, "grid", fixed=[], varied=varied, points=points, **kept), where, evaluation
        )

    def update(self, name: str, message: str = "") -> Run:
        """Read one job again; `message` says why it failed."""
        note = self.folder / name / FAILED
        if message:
            atomic_write(note, message)
        else:
            note.unlink(missing_ok=True)
        self.runs[name] = self._read(name)
        return self.runs[name]

    def _read(self, name: str) -> Run:
        run, place = Run(name, self.definition.values(name)), self.folder / name
        try:
            own, found = read_metrics(place), read_metrics(place / self.evaluation)
        except FileNotFoundError:
            if (note := place / FAILED).exists():
                run.state, run.message = "failed", note.read_text()
            return run
        except UserError as error:
            run.state, run.message = "failed", str(error)
            return run
        best = dict(found["best"])
        run.epoch = best.pop("epoch", None)
        # The training metrics of an epoch are of no use for choosing, and would fill the tables.
        run.metrics = {k: v for k, v in best.items() if not k.startswith("train/")} | found["metrics"]
        # What the run itself came to: measured again, a run that was set aside stays so.
        aimed = (own["best"] | own["metrics"]).get(self.definition.objective, math.nan)
        collapsed = own.get("collapsed") or found.get("collapsed")
        pruned = (place / "pruned").exists()
        run.state = "collapsed" if collapsed else "pruned" if pruned else "finished"
        if run.state == "finished" and not math.isfinite(aimed):
            run.state = "collapsed"
        return run

    def count(self, state: State) -> int:
        return sum(run.state == state for run in self.runs.values())

    @property
    def done(self) -> int:
        """Jobs that need not run again."""
        return sum(run.state in ("finished", "collapsed", "pruned") for run in self.runs.values())

    def distinct(self) -> list[Run]:
        """The runs, but one of those whose point a search has drawn again: the one that came furthest.

        With the same seed they can come to nothing else, and are no repetitions.
        """
        first: dict[str, Run] = {}
        for run in self.runs.values():
            known = first.setdefault(str(run.point), run)
            if STATES.index(run.state) < STATES.index(known.state):
                first[str(run.point)] = run
        return list(first.values())

    def settings(self) -> list[Setting]:
        """One a point, its repetitions with other seeds and folds together."""
        groups: dict[tuple, Setting] = {}
        for run in self.distinct():
            point = {key: value for key, value in run.point.items() if key not in REPEATS}
            groups.setdefault(tuple(map(str, point.items())), Setting(point, [])).runs.append(run)
        return list(groups.values())

    def best(self) -> Setting | None:
        """The setting with the best mean objective on validation, of those with the most finished runs.

        A mean over fewer seeds, of which others collapsed or are still to run, would win too easily.
        """
        metric, settings = self.definition.objective, self.settings()
        most = max((len(setting.values(metric)) for setting in settings), default=0)
        rivals = [setting for setting in settings if len(setting.values(metric)) == most > 0]
        choose = max if self.definition.direction == "maximize" else min
        return choose(rivals, key=lambda setting: setting.mean(metric), default=None)

    def metric_names(self) -> list[str]:
        """The objective, then the metrics of the test set, then the others."""
        names = dict.fromkeys(name for run in self.runs.values() for name in run.metrics)
        first = [self.definition.objective] if self.definition.objective in names else []
        test = sorted(name for name in names if name.startswith("test/"))
        return list(dict.fromkeys([*first, *test, *sorted(names)]))

    def distinct_metrics(self, preferred: Iterable[str] = ()) -> list[str]:
        """The metrics, `preferred` ones first, without those that are another one under a second name."""
        different: dict[tuple, str] = {}
        for name in [*preferred, *self.metric_names()]:
            found = (run.metrics.get(name) for run in self.runs.values() if run.state == "finished")
            values = tuple(None if value is None else f"{value:.5g}" for value in found)  # sums in another order
            different.setdefault(values, name)
        return [name for values, name in different.items() if any(value is not None for value in values)]


def _as_it_is(config: dict[str, Any]) -> bool:
    """Whether a run is that of an experiment as conf has it, but for the source of images and the seed."""
    said = [f"experiment={config['name']}", f"{SEED}={config['seed']}"]
    said += [f"data.source={config['data']['source']}"] if "source" in config["data"] else []
    return not difference(plain(compose(said)), config)
