"""Hydra's sweeper for all of the project's sweeps: points, checks, jobs, summary."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from healing_mnist.checks import UserError, problems_of, refuse
from healing_mnist.config import as_override, elsewhere, incidental, plain
from healing_mnist.files import empty
from healing_mnist.sweeps import checking, points
from healing_mnist.sweeps.composing import Composer
from healing_mnist.sweeps.definition import (
    FILE,
    Definition,
    Settings,
    default_folder,
    job_name,
    only_one,
    sweep_settings,
)
from healing_mnist.sweeps.launcher import SlotLauncher
from healing_mnist.sweeps.pool import PRELOAD, Job, Outcome, Pool, warm_up
from healing_mnist.sweeps.results import FAILED, Results, Run
from healing_mnist.sweeps.slots import describe, make_slots
from healing_mnist.sweeps.summary import Reporter

if TYPE_CHECKING:
    from healing_mnist.sweeps.display import Display

log = logging.getLogger(__name__)


class PointSweeper(Sweeper):
    """Choose points, check every job, run those that are not finished, summarise."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        warm_up(PRELOAD)
        launcher = plain(config.hydra.launcher)
        if launcher["_target_"].startswith("healing_mnist."):
            refuse(problems_of(launcher, "hydra.launcher"))
        self.elsewhere = elsewhere(launcher["_target_"])
        self.context, self.task, self.config = hydra_context, inspect.unwrap(task_function), config
        self.loader = hydra_context.config_loader
        self.composer = Composer(self.loader, config)

    def sweep(self, arguments: list[str]) -> None:
        arguments = list(map(points.said, arguments))
        settings = sweep_settings(self.config.get("sweep"), arguments)
        self.fixed, dimensions, together = self._split(settings, arguments)
        self.fresh = _yes(self.fixed.pop("fresh", "fresh=false"))
        if self.elsewhere:
            self.fixed |= self._absolute()
        definition = self._define(settings, dimensions, together)
        definition.command = [argument for argument in arguments if not incidental(argument)]
        self.folder = self._folder(definition)
        self.config.hydra.sweep.dir = str(self.folder)  # where launchers keep what is their own
        self.launcher = Plugins.instance().instantiate_launcher(self.context, self.task, self.config)
        with only_one(self.folder):
            if not self.fresh and (note := definition.compare(self.folder)):
                log.info("%s: %s", self.folder, note)
            self._run(settings, definition, dimensions)

    def _absolute(self) -> dict[str, str]:
        """Folders as they are named from everywhere: the nodes of a cluster start jobs in places of their own."""
        places = {key: OmegaConf.select(self.config, key) for key in ("output_dir", "data.root")}
        return {
            key: as_override(key, str(Path(place).expanduser().resolve())) for key, place in places.items() if place
        }

    def _split(self, settings: Settings, arguments: Sequence[str]) -> tuple[dict, list, list]:
        """What is fixed, what varies by itself and what varies together; the command line wins over the yaml."""
        given = [argument for argument in arguments if not argument.startswith(("sweep=", "sweep."))]
        fixed, varied = points.parse(given, self.loader)
        self.said = list(fixed.values())
        here = fixed.keys() | {key.lstrip("+~") for key in varied}
        written = points.from_yaml({key: value for key, value in settings.params.items() if key not in here})
        kept, listed = points.parse(written, self.loader)
        for group in settings.zip:
            said, left = ([key for key in group if (key in here) is given] for given in (True, False))
            if said and left:
                why = f"changes together with {', '.join(left)} (sweep.zip)"
                raise UserError(f"{', '.join(said)}: {why}; say all of them, or sweep.zip=[]")
        groups = [group for group in settings.zip if not here.intersection(group)]
        together = points.pairs(groups)
        if not (listed or varied or together):
            raise UserError(
                "nothing varies: name a sweep (sweep=...) or give a setting several values (model.latent_dim=3,4,5)"
            )
        fixed = kept | fixed
        experiment = self.config.hydra.runtime.choices.get("experiment")
        if experiment and not any("experiment" in part for part in (fixed, listed, varied, *groups)):
            fixed = {"experiment": f"experiment={experiment}"} | fixed
        return fixed, list((listed | varied).values()), together

    def _define(self, settings: Settings, dimensions: list, together: list) -> Definition:
        searched = [d for d in dimensions if d.key not in points.REPEATS]
        repeats = [d for d in dimensions if d.key in points.REPEATS]
        found: list[points.Point] = []
        if settings.method == "grid":
            found = points.repeated(points.grid(searched, together), repeats)
        elif settings.method == "random":
            found = points.repeated(points.sample(searched, together, settings.trials, settings.sampler_seed), repeats)
        elif together or repeats or not searched:
            raise UserError("sweep.method=tpe searches single settings: it takes no sweep.zip, no seeds and no folds")
        varied = {d.key: str(d) for d in dimensions}
        varied |= {key: ", ".join(point[key] for point in group) for group in together for key in group[0]}
        names = [job_name(point) for point in found]
        named = dict(zip(names, found, strict=True))
        for name, point in zip(names, found, strict=True):
            if named[name] != point:
                raise UserError(f"{point} and {named[name]}: both would be named {name}; sweep them in two folders")
        experiment = self.config.hydra.runtime.choices.get("experiment")
        experiments = [value for d in dimensions if d.key == "experiment" for value in d.values]
        experiments += [point["experiment"] for group in together for point in group if "experiment" in point]
        objective, direction = self._judged_by(settings, experiments)
        whose = "" if "experiment" in varied else f"{experiment}-"
        return Definition(
            name=settings.name or whose + ",".join(key.rsplit(".", 1)[-1] for key in varied),
            method=settings.method,
            objective=objective,
            direction=direction,
            fixed=list(self.fixed.values()),
            varied=varied,
            points=named,
            note=settings.note,
            report=settings.report,
            metrics=settings.metrics,
        )

    def _judged_by(self, settings: Settings, experiments: Sequence[str]) -> tuple[str, str]:
        """Objective and direction: the sweep's, else those that its experiments have in common."""
        if settings.objective or not experiments:
            return settings.objective or self.config.objective, settings.direction or self.config.direction
        configs = {name: self.composer([f"experiment={name}"]) for name in experiments}
        theirs = {name: (config.objective, settings.direction or config.direction) for name, config in configs.items()}
        if len(set(theirs.values())) > 1:
            listed = ", ".join(f"{name} by {objective} ({way})" for name, (objective, way) in theirs.items())
            raise UserError(f"experiments that are judged differently: {listed}; say sweep.objective, sweep.direction")
        return next(iter(theirs.values()))

    def _folder(self, definition: Definition) -> Path:
        chosen = any(override.startswith("hydra.sweep.dir=") for override in self.config.hydra.overrides.hydra)
        default = default_folder(self.config.output_dir, definition.name, self.said)
        folder = Path(self.config.hydra.sweep.dir) if chosen else default
        return folder.resolve() if self.elsewhere else folder

    def _run(self, settings: Settings, definition: Definition, dimensions: Sequence[points.Dimension]) -> None:
        from healing_mnist.sweeps.display import Display  # brings in rich, which no single run needs

        total = settings.trials if settings.method == "tpe" else len(definition.points)
        pool = self._pool(total)
        waiting, tell = self._source(settings, definition, dimensions, pool)
        results = Results(self.folder, definition)
        where = describe(pool.slots) if isinstance(self.launcher, SlotLauncher) else type(self.launcher).__name__
        log.info("%d of %d jobs to run, %s, in %s", max(0, total - results.done), total, where, self.folder)
        jobs = ((name, self._overrides(definition.points[name], name), self.folder / name) for name in waiting)
        batch = settings.batch if settings.method == "tpe" else len(definition.points)
        with Reporter(results, pool, total) as report:
            with Display(results, total, len(pool.slots)) as display:
                for outcome in self._outcomes(jobs, pool, batch, display, report):
                    tell(results.update(outcome.job.name, outcome.message))
                    display.ended(outcome)
                    report.update()
            report.finish()

    def _pool(self, jobs: int) -> Pool:
        """The slots of this machine; on a cluster they only check the jobs."""
        if isinstance(self.launcher, SlotLauncher):
            return self.launcher.pool(jobs)
        return Pool(make_slots("cpu", jobs=jobs), preload=PRELOAD)

    def _source(
        self, settings: Settings, definition: Definition, dimensions: Sequence[points.Dimension], pool: Pool
    ) -> tuple[Iterator[str], Callable[[Run], None]]:
        """Check all jobs; return the names of those to run, and whom to tell how they ended."""
        judged_by = definition.objective, definition.direction
        if settings.method != "tpe":
            jobs = {name: self._overrides(point, name) for name, point in definition.points.items()}
            done = checking.check(pool, self.composer, self.folder, judged_by, jobs, self.fresh, definition.metrics)
            self._begin(definition)
            return iter([name for name in definition.points if name not in done]), lambda run: None
        from healing_mnist.sweeps.search import Search, corners

        if settings.prune:
            target = "healing_mnist.sweeps.pruning.Pruning"
            monitor = definition.objective  # which may be another than the jobs' own
            self.fixed["callbacks.pruning"] = f"+callbacks.pruning={{_target_:{target},monitor:{monitor}}}"
        jobs = {f"probe {i}": self._overrides(point, "probe") for i, point in enumerate(corners(dimensions))}
        jobs |= {name: self._overrides(point, name) for name, point in definition.points.items()}
        checking.check(pool, self.composer, self.folder, judged_by, jobs, self.fresh, definition.metrics)
        self._begin(definition)
        search = Search(self.folder, definition, dimensions, settings)
        return iter(search), search.tell

    def _begin(self, definition: Definition) -> None:
        """Everything is right: from now on the folder is this sweep's."""
        if self.fresh:
            empty(self.folder, FILE, "hydra.sweep.dir")
        definition.save(self.folder)
        for note in self.folder.glob(f"*/{FAILED}"):  # these jobs run again
            note.unlink()

    def _overrides(self, point: points.Point, name: str | None = None) -> list[str]:
        """What `train.py` would be called with for this point, and where it shall write."""
        overrides = [*self.fixed.values(), *(f"{key}={value}" for key, value in point.items())]
        if name is not None:
            overrides += [
                as_override("run_dir", str(self.folder / name)),
                as_override("hydra.sweep.dir", str(self.folder)),
                as_override("hydra.sweep.subdir", name),
            ]
        return overrides

    def _outcomes(
        self,
        jobs: Iterable[tuple[str, list[str], Path]],
        pool: Pool,
        batch: int,
        display: Display,
        report: Reporter,
    ) -> Iterator[Outcome]:
        """Run the jobs here in slots, or hand them to another launcher in lists and look into their folders."""
        if isinstance(self.launcher, SlotLauncher):
            tell = {"on_start": display.started, "on_retry": display.again}
            yield from self.launcher.stream(jobs, pool, self.composer, **tell)
            return
        number = 0
        while listed := list(islice(jobs, batch)):
            started = time.monotonic()
            try:
                with report.watching([name for name, _, _ in listed]):
                    returns = self.launcher.launch([overrides for _, overrides, _ in listed], number)
                messages = [
                    f"{type(r._return_value).__name__}: {r._return_value}" if r.status != JobStatus.COMPLETED else ""
                    for r in returns
                ]
            except Exception as error:  # a job that was killed ends some launchers
                messages = [f"{type(error).__name__}: {error}"] * len(listed)
            number += len(listed)
            for (name, _, place), message in zip(listed, messages, strict=True):
                done = (place / "metrics.json").exists()
                seconds = (time.monotonic() - started) / len(listed)
                job = Job(name, lambda: None, place / "run.log")
                yield Outcome(job, "finished" if done else "failed", seconds, message="" if done else message)


def _yes(override: str) -> bool:
    value = yaml.safe_load(override.split("=", 1)[1])
    if not isinstance(value, bool):
        raise UserError(f"{override}: must be true or false")
    return value
