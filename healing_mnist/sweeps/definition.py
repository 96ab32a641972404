"""What a sweep is: written into its folder at the first start, and compared at every later one."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from os import getpid
from pathlib import Path
from typing import Any, Literal

import yaml
from filelock import FileLock, Timeout

from healing_mnist.checks import NonNegative, Positive, UserError, problems_of, refuse
from healing_mnist.config import INCIDENTAL, dotted, folder_name, incidental, plain, there_and_now
from healing_mnist.files import atomic_write
from healing_mnist.sweeps.points import Point, value_of

FILE = "sweep.yaml"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C where there is one


@dataclass
class Settings:
    """The group `sweep`, described in conf/sweep/base.yaml."""

    name: str | None = None
    method: Literal["grid", "random", "tpe"] = "grid"
    params: dict[str, Any] = field(default_factory=dict)
    zip: list[Any] = field(default_factory=list)
    trials: Positive = 50
    sampler_seed: NonNegative = 0
    prune: bool = False
    batch: Positive = 16
    objective: str | None = None
    direction: Literal["minimize", "maximize"] | None = None  # None: the experiment's own
    note: str = ""
    report: list[Any] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)


@dataclass
class Definition:
    """A sweep in plain data, as it lies in ``sweep.yaml``."""

    name: str
    method: str
    objective: str
    direction: str
    fixed: list[str]  # overrides that all jobs share
    varied: dict[str, str]  # setting -> what it varies over, in words
    points: dict[str, Point]  # name of the job's folder -> its point; tpe adds them as it goes
    note: str = ""
    report: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)  # columns of the table; all of the test set's when empty
    command: list[str] = field(default_factory=list)  # what sweep.py was called with, but for where things lie

    def save(self, folder: Path) -> None:
        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        text = yaml.dump(asdict(self), Dumper=dumper, sort_keys=False, default_flow_style=None, width=120)
        atomic_write(folder / FILE, text)

    @classmethod
    def load(cls, folder: Path) -> Definition:
        try:
            text = (folder / FILE).read_text()
        except FileNotFoundError:
            raise UserError(f"{folder}: not the folder of a sweep (it has no {FILE})") from None
        try:
            return cls(**yaml.load(text, LOADER))
        except (TypeError, yaml.YAMLError) as error:
            raise UserError(f"{folder / FILE}: damaged ({str(error).splitlines()[0]})") from error

    def compare(self, folder: Path) -> str:
        """Whether this sweep may go on in `folder`: one that is there already may only gain points.

        Returns what to tell the user. Raises UserError with the difference when it is another sweep.
        """
        if not (folder / FILE).exists():
            return ""
        old = Definition.load(folder)
        # Another trainer may compute the same on another machine; where it does not, the jobs that ran are refused.
        kept = [
            dict(o.split("=", 1) if "=" in o else (o, "left out") for o in each.fixed if not incidental(o))
            for each in (old, self)
        ]
        for fixed in kept:
            fixed.pop("trainer", None)
        kinds = [{key: getattr(each, key) for key in ("method", "objective", "direction")} for each in (old, self)]
        changed = _changes(*kinds) + _changes(*kept)
        if old.varied.keys() != self.varied.keys() or (self.method == "tpe" and old.varied != self.varied):
            spaces = [{key: f"varies ({space})" for key, space in each.varied.items()} for each in (old, self)]
            changed += _changes(*spaces)
        elif self.method != "tpe" and (gone := [name for name in old.points if name not in self.points]):
            changed.append(f"points no longer in the sweep: {', '.join(gone[:5])}" + " ..." * (len(gone) > 5))
        if changed:
            raise UserError(
                "\n  ".join([f"{folder} holds another sweep:", *changed])
                + "\nChoose another folder with hydra.sweep.dir=..., or start over with fresh=true, which deletes it."
            )
        added = len(self.points.keys() - old.points.keys())
        if self.method == "tpe":
            self.points = old.points
        return f"the sweep grows by {added} points" if added and self.method != "tpe" else "continuing"

    def values(self, name: str) -> dict[str, Any]:
        """The point of a job, as numbers and words."""
        return {key: value_of(text) for key, text in self.points[name].items()}


def job_name(point: Point) -> str:
    """Name of a job's folder: what varies."""
    return folder_name({dotted(key): value_of(text) for key, text in point.items()})


def default_folder(output_dir: str, name: str, said: list[str]) -> Path:
    """``<output_dir>/sweeps/<name>[,<overrides said with it>]``: the same command finds its folder again."""
    settings = dict(override.lstrip("+~").split("=", 1) for override in said if "=" in override)
    hidden = {"fresh", *INCIDENTAL} | ({"experiment"} if name.startswith(f"{settings.get('experiment')}-") else set())
    settings = {key.replace("/", "."): settings[key] for key in sorted(settings) if key not in hidden}
    return Path(output_dir) / "sweeps" / (f"{name},{folder_name(settings)}" if settings else name)


def sweep_settings(node: Any, said: Sequence[str] = ()) -> Settings:
    """The group `sweep`, the defaults when no sweep was named.

    Raises UserError with every mistake in it; one is to say, in the overrides `said`, what a grid has no use for.
    """
    values = plain(node) or {}
    refuse(problems_of({"_target_": f"{__name__}.Settings", **values}, "sweep"))
    settings = Settings(**values)
    searching = [override for override in said if override.startswith(("sweep.trials=", "sweep.sampler_seed="))]
    if settings.method == "grid" and searching:
        raise UserError(f"{searching[0]}: a grid runs all of its points; it needs sweep.method=random or tpe")
    if settings.prune and settings.method != "tpe":
        raise UserError(f"sweep.prune=true: sweep.method={settings.method} stops no trial; it needs sweep.method=tpe")
    return settings


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with this process; a second sweep in one folder is refused.

    A folder in which nothing was left goes again, and with it those above that were made for it.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / ".lock"), folder / ".holder"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = holder.read_text() if holder.exists() else "another process"
        raise UserError(f"{folder}: {who} is running this sweep already") from None
    try:
        holder.write_text(f"process {getpid()} on {socket.gethostname()}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        if [path.name for path in folder.glob("*")] == [".lock"]:
            (folder / ".lock").unlink()
            for place in made or [folder]:
                if not any(place.iterdir()):
                    place.rmdir()
        lock.release()


def _changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """A line for each key that has not the same words on both sides, or is on one alone."""
    pairs = {key: (old.get(key, "not said"), new.get(key, "not said")) for key in sorted(old.keys() | new.keys())}
    return there_and_now({key: (before, now) for key, (before, now) in pairs.items() if before != now})
