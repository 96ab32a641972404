"""Compose and check every job of a sweep before the first one runs."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from healing_mnist.checks import UserError, refuse, suggestion
from healing_mnist.config import difference, flatten, plain, saved_settings, there_and_now
from healing_mnist.files import read_metrics
from healing_mnist.sweeps.composing import Composer
from healing_mnist.sweeps.launcher import prepare_process
from healing_mnist.sweeps.pool import Job, Pool, tail

log = logging.getLogger(__name__)
MANY = 20  # metrics that a message lists
Found = list[tuple[str, str]]  # job -> what is wrong with it


def check(
    pool: Pool,
    composer: Composer,
    folder: Path,
    judged_by: tuple[str, str],
    jobs: Mapping[str, Sequence[str]],
    fresh: bool = False,
    columns: Sequence[str] = (),
) -> set[str]:
    """Check all jobs (name of its folder -> overrides), in the pool's slots because it needs what the jobs need.

    `judged_by` is the metric that compares them, which each must log, and its direction; `columns` are metrics of
    which each must be logged by one of them. Returns the names of those that are finished; with `fresh`, what is in
    their folders does not count.
    Raises one UserError with every problem there is.
    """
    log.info("checking %d jobs", len(jobs))
    for overrides in jobs.values():  # compose what the jobs share, while the slots' imports go on
        with suppress(Exception):  # which the checks meet again, and report
            composer.split(overrides)
    parts = [dict(list(jobs.items())[i :: len(pool.slots)]) for i in range(len(pool.slots))]
    checks = [
        Job(
            f"checks {i}",
            partial(_check, composer, folder, judged_by, part, fresh, columns),
            folder / f"checks-{i}.log",
        )
        for i, part in enumerate(parts)
        if part
    ]
    problems: Found = []
    done: set[str] = set()
    logged: list[str] = []
    for outcome in pool.plain().run(checks):
        if outcome.status == "failed":
            raise UserError(f"checking the jobs failed: {outcome.message}\n{tail(outcome.job.log)}")
        wrong, finished, metrics = outcome.value
        problems += wrong
        done |= finished
        logged += metrics
        outcome.job.log.unlink()
    if problems:
        raise UserError(_report(problems, len(jobs)))
    refuse(_column_problems(columns, dict.fromkeys(logged)))
    return done


def _column_problems(columns: Sequence[str], logged: Collection[str]) -> list[str]:
    """Columns of the table that none of the metrics `logged`, names or patterns, would fill."""
    names, problems = [name for name in logged if "*" not in name], []
    for column in columns:
        if not any(fnmatchcase(column, pattern) for pattern in logged):
            near = list(logged) if len(names) <= MANY else get_close_matches(column, names, MANY, cutoff=0)
            allowed = ", ".join(near) + f" and {len(names) - MANY} more" * (len(names) > MANY)
            problems.append(f"sweep.metrics={column}: no job logs it{suggestion(column, names)}; allowed: {allowed}")
    return problems


def _check(
    composer: Composer,
    folder: Path,
    judged_by: tuple[str, str],
    jobs: Mapping[str, Sequence[str]],
    fresh: bool,
    columns: Sequence[str],
) -> tuple[Found, set[str], list[str]]:
    """What is wrong with these jobs, which are finished, and what they log as far as `columns` make that a question."""
    prepare_process()
    from healing_mnist import build, cli

    HydraConfig.instance().set_config(composer.master)  # some strategies are refused inside a sweep
    wrong: Found = []
    done: set[str] = set()
    logged: list[str] = []
    misfits: dict[tuple[str, ...], str] = {}  # kind of job -> why its parts do not fit together
    for name, overrides in jobs.items():
        try:
            config = composer(overrides)
            config = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
            finished = _finished(None if fresh else folder / name, config, judged_by)
            if _column_problems(columns, logged):
                logged += [*(_measured(folder / name) if finished else ()), *build.metrics_of(config)]
            if finished:
                done.add(name)
                continue
            if (kind := _kind(config)) not in misfits:
                misfits[kind] = _misfit(config, folder / name)
            if misfits[kind]:
                wrong.append((name, misfits[kind]))
        except Exception as error:
            wrong.append((name, cli.explain(error)))
    return wrong, done, logged


def _measured(place: Path) -> list[str]:
    """The metrics of a finished run."""
    found = read_metrics(place)
    return [name for name in {**found["best"], **found["metrics"]} if name.startswith(("val/", "test/"))]


def _kind(config: DictConfig) -> tuple[str, ...]:
    """What a job is made of, whatever its numbers; jobs of one kind fit together or do not."""
    parts = {group: plain(config.get(group)) or {} for group in ("data", "model", "task", "callbacks", "analysis")}
    kind = [f"{key}={value}" for key, value in flatten(parts).items() if "_target_" in key]
    if path := OmegaConf.select(config, "pretrained.checkpoint"):  # which fits some sizes of a model
        kind += [f"{key}={value}" for key, value in flatten({"model": plain(config.model)}).items()] + [str(path)]
    return tuple(kind)


def _misfit(config: DictConfig, place: Path) -> str:
    """Why the parts of a job do not fit together, seen on two rows; nothing where they do."""
    from healing_mnist import runs

    try:  # on a CPU: the jobs of a cluster find their devices there
        runs.prepare(config, place, accelerator="cpu", devices=1, strategy="auto", num_nodes=1)
    except UserError as error:
        return str(error)
    return ""


def _finished(place: Path | None, config: DictConfig, judged_by: tuple[str, str]) -> bool:
    """Whether this very run is finished in `place`; raises what is wrong with it where it is not."""
    from healing_mnist import build

    if place and (saved := place / "config.yaml").exists():
        if changed := difference(saved_settings(saved), plain(config)):
            raise UserError("\n  ".join(["its folder holds a run with other settings:", *there_and_now(changed)]))
        if (place / "metrics.json").exists():
            read_metrics(place)
            return True
    build.check(config)
    if judged_by != (config.objective, config.direction):
        config.objective, config.direction = judged_by
        build.check(config)
    return False


def _report(problems: Found, total: int) -> str:
    """Every problem once, with the jobs that have it."""
    jobs: dict[str, list[str]] = {}
    for name, problem in problems:
        jobs.setdefault(problem, []).append(name)
    lines = [f"{len({name for name, _ in problems})} of {total} jobs cannot run; none was started."]
    for problem, names in jobs.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        lines.append(f"{', '.join(names[:3])}{more}: {problem}")
    return "\n".join(lines)
