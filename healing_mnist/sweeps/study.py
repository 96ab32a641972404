"""Many sweeps, one after another, and one document of what they found: ``python sweep.py study=reports``.

A study is a file in conf/study. Its parts are run by the commands a user would type and read from the folders these
leave, so a study that was interrupted goes on.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from healing_mnist.checks import UserError, suggestion
from healing_mnist.config import CONF, ROOT, evaluation_name
from healing_mnist.sweeps.pool import DRAWING, PRELOAD, Job, Pool, tail
from healing_mnist.sweeps.results import Results
from healing_mnist.sweeps.slots import Slot, make_slots

log = logging.getLogger(__name__)
OPTIONS = ("study", "small", "only", "run", "mnist", "cifar10")


@dataclass(frozen=True)
class Part:
    """One table of the document, with its figures.

    Its runs come from a sweep of its own, from the sweep of an earlier part, or from folders.
    """

    name: str  # of its folder, outputs/results/<name>
    title: str
    sweep: list[str] = field(default_factory=list)  # arguments of sweep.py
    small: list[str] = field(default_factory=list)  # added where the study is run small; [skip]: left out
    of: str | None = None  # the part whose runs these are
    runs: str | None = None  # glob of run folders below outputs/, an experiment each
    where: dict[str, Any] = field(default_factory=dict)  # which of these runs: setting -> value
    evaluate: list[str] = field(default_factory=list)  # arguments of evaluate.py: measure these runs again
    metrics: list[str] = field(default_factory=list)  # columns; as the sweep says when empty
    ranked: bool = True  # the best row stands out; false: the rows are of different test sets
    table: dict[str, Any] = field(default_factory=dict)  # instead: a CSV of each run, see document.from_csv
    data: str | None = None  # mnist or cifar10, where its data are not made here
    says: str = ""  # what the report found, where it is no figure of the table
    remark: str = ""  # where we differ, and why
    figures: dict[str, str] = field(default_factory=dict)  # title -> glob of a PNG below the part's folder


@dataclass(frozen=True)
class Study:
    """A list of parts and the document they make."""

    name: str
    document: Path
    title: str
    intro: str
    parts: list[Part]
    small: list[str]  # arguments of every sweep of a small study

    @classmethod
    def load(cls, name: str) -> Study:
        """Read ``conf/study/<name>.yaml``. Raises UserError for a study, key or part that is not there."""
        names = sorted(path.stem for path in (CONF / "study").glob("*.yaml"))
        if name not in names:
            raise UserError(f"study={name}: there is none{suggestion(name, names)}. Allowed: {', '.join(names)}")
        try:
            found = yaml.safe_load((CONF / "study" / f"{name}.yaml").read_text())
        except yaml.YAMLError as error:
            raise UserError(f"conf/study/{name}.yaml: {error}") from error
        known = [f.name for f in fields(cls) if f.name != "name"]
        problems = [f"unknown key {key}{suggestion(key, known)}" for key in sorted(found.keys() - set(known))]
        problems += [f"no {key}" for key in known if key not in found]
        if problems:
            raise UserError(f"study={name}: {', '.join(problems)}; its keys are {', '.join(known)}")
        known = [f.name for f in fields(Part)]
        for part in found["parts"]:
            for key in part.keys() - set(known):
                raise UserError(f"study={name}, part {part.get('name')}: unknown key {key}{suggestion(key, known)}")
        parts = [Part(**part) for part in found.pop("parts")]
        study = cls(name=name, parts=parts, document=ROOT / found.pop("document"), **found)
        names = [part.name for part in parts]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UserError(f"study={name}: more than one part is named {', '.join(sorted(twice))}")
        for part in parts:
            if part.of and part.of not in names:
                raise UserError(f"study={name}, part {part.name}: of={part.of}: {study.no_part(part.of)}")
        return study

    def part(self, name: str) -> Part:
        for part in self.parts:
            if part.name == name:
                return part
        raise UserError(f"study={self.name}: {self.no_part(name)}")

    def no_part(self, name: str) -> str:
        names = [part.name for part in self.parts]
        return f"there is no part '{name}'{suggestion(name, names) or '.'} Its parts: {', '.join(names)}"


@dataclass(frozen=True)
class Setup:
    """How a study is run this time."""

    study: Study
    small: bool = False
    roots: Mapping[str, str] = field(default_factory=dict)  # mnist, cifar10 -> folder with the files
    extra: Sequence[str] = ()  # arguments of every sweep

    @property
    def output_dir(self) -> Path:
        said = [o.removeprefix("output_dir=") for o in self.extra if o.startswith("output_dir=")]
        return Path(said[-1]) if said else Path("outputs/small" if self.small else "outputs")

    @property
    def document(self) -> Path:
        return self.output_dir / "results.md" if self.small else self.study.document

    def folder(self, part: Part) -> Path:
        return self.output_dir / "results" / (part.of or part.name)

    def planned(self, part: Part) -> list[str]:
        """What the study says that sweep.py is called with."""
        data = [f"data.source={part.data}"] if part.data == "mnist" and not self.small else []
        said = [*part.sweep, *data, *(self.study.small if self.small else []), *(part.small if self.small else [])]
        return _last_words(said)

    def arguments(self, part: Part) -> list[str]:
        """What sweep.py is called with this time."""
        return _last_words([*self.planned(part), *self.extra])

    def root(self, part: Part) -> list[str]:
        """Where the files of the part's data are, if that was said."""
        root = None if self.small else self.roots.get(part.data or "")
        return [f"data.root={root}"] if root else []

    def places(self, part: Part) -> list[str]:
        """Arguments that say where things lie; they are no part of what is run."""
        return [*self.root(part), f"output_dir={self.output_dir}", f"hydra.sweep.dir={self.folder(part)}"]

    def machine(self, part: Part) -> list[str]:
        """What evaluate.py is told of this machine."""
        return [*self.root(part), *(["trainer.accelerator=cpu"] if self.on_cpu else [])]

    @property
    def on_cpu(self) -> bool:
        return "trainer=cpu" in (*self.extra, *(self.study.small if self.small else []))

    def slots(self, jobs: int) -> list[Slot]:
        """Where so many evaluations may run: as the sweeps do."""
        said = dict(override.split("=", 1) for override in self.extra)
        devices, each = (said.get(f"hydra.launcher.{name}") for name in ("devices", "slots_per_device"))
        return make_slots(
            yaml.safe_load(devices) if devices else "auto",
            int(each) if each else None,
            "cpu" if self.on_cpu else "auto",
            jobs,
        )

    def owner(self, part: Part) -> Part:
        """The part whose runs are those of `part`."""
        return self.study.part(part.of) if part.of else part

    def results(self, part: Part) -> Results | None:
        """What the part's runs found; None when there are none yet."""
        owner = self.owner(part)
        again = evaluation_name(self.evaluation(part)) if part.evaluate else ""
        if owner.runs:
            return Results.found(self.output_dir, owner.runs, {**owner.where, **part.where}, again)
        if not (self.folder(owner) / "sweep.yaml").exists():
            return None
        return Results.load(self.folder(owner), part.where, again)

    def evaluation(self, part: Part) -> list[str]:
        """What evaluate.py is called with for each of the part's runs."""
        return _last_words([*part.evaluate, *(part.small if self.small else [])])


def end_children_too() -> None:
    """Make SIGTERM an exception, at which `subprocess.run` kills the sweep it waits for; its jobs end with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def run(arguments: Sequence[str]) -> None:
    """Run a study, or the parts that ``only=a,b`` names, and write its document.

    Args:
        arguments: ``study=NAME``, ``small=true`` (the bundled digits, little of everything), ``only=PART,PART``,
            ``run=false`` (only write the document from the runs that are there), ``mnist=FOLDER``, ``cifar10=FOLDER``
            (files that are here already), and overrides for every sweep.

    Raises:
        UserError: an unknown study or part; something that is no KEY=VALUE; a part failed (the others are run all the
            same).
    """
    if unknown := [argument for argument in arguments if "=" not in argument or argument.startswith(("-", "~"))]:
        raise UserError(f"{', '.join(unknown)}: a study takes KEY=VALUE only (python sweep.py study=NAME --help)")
    options = dict(argument.split("=", 1) for argument in arguments)
    own = {key: options.pop(key) for key in OPTIONS if key in options}
    for key in ("small", "run"):
        if own.get(key, "true") not in ("true", "false"):
            raise UserError(f"{key}={own[key]}: must be true or false")
    for key in ("mnist", "cifar10"):
        if key in own and not os.path.isdir(os.path.expanduser(own[key])):
            raise UserError(f"{key}={own[key]}: no such folder")
    settings = yaml.safe_load((CONF / "train.yaml").read_text())
    known = [*OPTIONS, *settings, *(path.name for path in CONF.iterdir() if path.is_dir())]
    for key in options:
        if key.lstrip("+") not in known and not set("./@") & set(key):
            raise UserError(f"{key}={options[key]}: neither an option of a study nor a setting{suggestion(key, known)}")
    study = Study.load(own["study"])
    setup = Setup(
        study,
        small=own.get("small") == "true",
        roots={key: own[key] for key in ("mnist", "cifar10") if key in own},
        extra=[f"{key}={value}" for key, value in options.items()],
    )
    chosen = [study.part(name) for name in own["only"].split(",")] if "only" in own else list(study.parts)
    for part in [part for part in chosen if setup.small and part.small == ["skip"]]:
        log.info("left out of a small study: %s", part.name)
        chosen.remove(part)
    from healing_mnist.sweeps import document

    failed = []
    for number, part in enumerate(chosen, 1):
        if own.get("run") != "false":
            log.info("part %d of %d: %s", number, len(chosen), part.title)
            if not (_swept(setup, part) and _evaluated(setup, part)):
                failed.append(part.name + (f" (with the runs of {part.of or part.runs})" if not part.sweep else ""))
        document.write(setup, [part])
    log.info("written: %s", setup.document)
    if failed:
        raise UserError(f"{len(failed)} of {len(chosen)} parts are not finished: {', '.join(failed)}. Run this again.")


def _swept(setup: Setup, part: Part) -> bool:
    if not part.sweep:
        return True
    command = [sys.executable, ROOT / "sweep.py", *setup.arguments(part), *setup.places(part)]
    return subprocess.run(command).returncode == 0


def _evaluated(setup: Setup, part: Part) -> bool:
    """Measure the part's runs again where they have not been."""
    results = setup.results(part)
    if results is None or not results.runs:
        log.warning("%s: there are no runs %s", part.name, f"with {part.where}" if part.where else "yet")
        return False
    if not part.evaluate:
        return True
    places = [results.folder / name for name in results.runs if (results.folder / name / "metrics.json").exists()]
    waiting = [place for place in places if not (place / results.evaluation / "metrics.json").exists()]
    again = [*setup.evaluation(part), *setup.machine(part)]
    jobs = [Job(place.name, partial(_evaluate, place, again), place / "evaluate.log") for place in waiting]
    pool = Pool(setup.slots(len(jobs) or 1), preload=(*PRELOAD, *DRAWING))
    good = True
    for outcome in pool.run(jobs):
        if outcome.status == "failed":
            log.warning("%s: %s\n%s", outcome.job.name, outcome.message, tail(outcome.job.log))
            good = False
    return good


def _last_words(overrides: Sequence[str]) -> list[str]:
    """A later word about a setting replaces an earlier one."""
    return [f"{key}={value}" for key, value in dict(override.split("=", 1) for override in overrides).items()]


def _evaluate(run: Path, overrides: Sequence[str]) -> None:
    from healing_mnist import evaluation
    from healing_mnist.sweeps.launcher import prepare_process

    prepare_process()
    evaluation.evaluate(run, overrides)
