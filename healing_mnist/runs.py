"""One run: build it from a configuration, train it, test it, and keep all of it in one folder.

A run folder holds config.yaml (resolved), overrides.yaml, environment.json (versions, commit, seconds), run.log,
TensorBoard events, metrics.csv (a row per epoch), figures/, checkpoints/best.ckpt and last.ckpt, and metrics.json,
written last: its presence means that the run is finished.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import subprocess
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from healing_mnist.build import (
    build_data,
    build_task,
    check,
    check_groups,
    check_own,
    load_task,
    make_trainer,
    starts_processes,
)
from healing_mnist.callbacks.metrics_table import MetricsTable
from healing_mnist.checkpoints import load_state, read_checkpoint
from healing_mnist.checks import UserError
from healing_mnist.config import (
    as_override,
    compose,
    difference,
    essential,
    evaluation_name,
    flatten,
    folder,
    folder_name,
    incidental,
    key_of,
    plain,
)
from healing_mnist.files import atomic_write, empty, may_be_emptied
from healing_mnist.memory import keep_freed_memory
from healing_mnist.tasks.base import Task

log = logging.getLogger(__name__)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


# Of the code that is running, whatever is committed while it does.
COMMIT, CHANGES = _git("rev-parse", "HEAD"), _git("status", "--porcelain")


@dataclass
class Result:
    """What a finished run leaves: its folder and what metrics.json says."""

    folder: Path
    metrics: dict[str, float]  # test metrics
    best: dict[str, float]  # `epoch` chosen on validation, with the validation metrics it had
    objective: float | None  # the validation metric the run was optimised for, at that epoch
    collapsed: bool = False


def train(cfg: DictConfig, overrides: Sequence[str] = ()) -> Result | None:
    """Train, choose the best epoch on validation, test it once; or return what an earlier, equal run found.

    An unfinished run continues from its last finished epoch. Returns None in the processes that ddp adds to the first.

    Raises:
        UserError: a mistake in the settings, the folder holds a run of other settings, or, with `fresh`, no run at all.
    """
    check_own(cfg)
    place = folder(cfg)
    if cfg.fresh or finished(place) is None:
        if not _leads(cfg):
            return _train(cfg, place)
        check(cfg)  # before anything is left on the disk, or deleted
        if cfg.fresh:
            may_be_emptied(place, "config.yaml", "run_dir")
    with locked(place):
        if cfg.fresh:  # not before: another process may be at work there
            empty(place, "config.yaml", "run_dir")
        _claim(place, plain(cfg), overrides)
        if (found := finished(place)) is not None:
            log.info("already finished, nothing to do: %s", place)
            return found
        with logging_to(place / "run.log"):
            return _train(cfg, place)


def _leads(cfg: DictConfig) -> bool:
    """Whether this process keeps the run's folder: the first of all that ddp uses, on however many nodes."""
    environ, trainer = os.environ, cfg.trainer
    several = trainer.num_nodes > 1 or starts_processes(trainer)
    if several and (rank := environ.get("RANK", environ.get("SLURM_PROCID"))) is not None:
        return int(rank) == 0
    node = environ.get("NODE_RANK", environ.get("GROUP_RANK", 0)) if several else 0
    return int(environ.get("LOCAL_RANK", 0)) == int(node) == 0


def _train(cfg: DictConfig, place: Path) -> Result | None:
    started = time.perf_counter()
    hush()
    if cfg.keep_memory and not keep_freed_memory():
        log.warning("keep_memory=true changes nothing here: the C library is not glibc")
    L.seed_everything(cfg.seed, verbose=False)
    data, task = build_data(cfg), build_task(cfg)
    load_pretrained(task, cfg)
    trainer = make_trainer(cfg, place)
    last = place / "checkpoints" / "last.ckpt"
    if last.exists():
        log.info("continuing from %s", last)
    trainer.fit(task, data, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    table = _metrics_table(trainer)
    chosen = table.best_row(cfg.objective, cfg.direction)
    if trainer.world_size > 1:
        torch.distributed.destroy_process_group()
        if trainer.global_rank > 0:
            return None
        trainer = _single_trainer(cfg, place)
    best = place / "checkpoints" / "best.ckpt"
    if best.exists():
        task.load_state_dict(read_checkpoint(best)["state_dict"])
    trainer.test(task, data, verbose=False)
    result = _measured(trainer, place, chosen, cfg.objective)
    _write_environment(place, seconds=table.seconds_before + time.perf_counter() - started)
    _log_hparams(trainer, cfg, result)
    atomic_write(place / "metrics.json", json.dumps(_as_json(result), indent=2) + "\n")
    return result


def _single_trainer(cfg: DictConfig, place: Path) -> L.Trainer:
    """One that tests each row once, in one process: a distributed sampler counts the rows that pad its last batch."""
    devices = plain(cfg.trainer.devices)
    first = devices[:1] if isinstance(devices, list) else 1
    return make_trainer(cfg, place, devices=first, strategy="auto", num_nodes=1)


def evaluate(run: Path, overrides: Sequence[str] = ()) -> Result:
    """Test a finished run again, with other data or analyses if `overrides` say so, into ``<run>/evaluations/``.

    Raises:
        UserError: `run` is no finished run; an override changes what was trained.
    """
    if finished(run) is None:
        raise UserError(f"run={run}: not a finished run (it has no metrics.json)")
    for override in overrides:
        group = key_of(override).split(".")[0].split("/")[0].split("@")[0]
        if group not in ("data", "analysis", "trainer", "callbacks", "logger", "seed"):
            raise UserError(f"{override}: an evaluation cannot change this; allowed: data, analysis, trainer, logger")
    cfg = _composed_again(run, overrides)
    place = run / evaluation_name(overrides)
    OmegaConf.update(cfg, "run_dir", str(place))
    check_groups(cfg, "data", "callbacks", "analysis", "logger", "trainer")
    data = build_data(cfg)
    _refuse_other_deal(run, type(data).dealt_by, plain(cfg.data))
    task = load_task(run / "checkpoints" / "best.ckpt")
    for key, shape in flatten(task.config["model"]).items():
        if key.endswith("image_shape") and list(shape) != list(data.image_shape):
            given, trained = ("x".join(map(str, sizes)) for sizes in (data.image_shape, shape))
            raise UserError(f"run={run}: was trained on images of {trained} (channels x height x width), not {given}")
    place.mkdir(parents=True, exist_ok=True)
    with logging_to(place / "run.log"):
        hush()
        L.seed_everything(cfg.seed, verbose=False)
        trainer = _single_trainer(cfg, place)
        trainer.test(task, data, verbose=False)
        result = _measured(trainer, place, {}, cfg.objective)
    atomic_write(place / "metrics.json", json.dumps(_as_json(result), indent=2) + "\n")
    return result


def _refuse_other_deal(run: Path, dealt_by: Sequence[str], data: dict[str, Any]) -> None:
    """Raise UserError where other images of the same source would be tested, some of which the run was trained on."""
    trained = plain(OmegaConf.load(run / "config.yaml"))["data"]
    if any(trained.get(key) != data[key] for key in ("_target_", "source")):
        return
    for key in dealt_by:
        if trained[key] != data[key]:
            raise UserError(
                f"data.{key}={data[key]}: run={run} was trained with {trained[key]}, and would be tested on sequences "
                "that it was trained on; leave it as it is"
            )


def _composed_again(run: Path, overrides: Sequence[str]) -> DictConfig:
    """The settings of a run with other words said last."""
    # What was said of a group that decides nothing holds no longer where another option of it is named.
    named = tuple(f"{key_of(override)}." for override in overrides)
    saved = [o for o in OmegaConf.load(run / "overrides.yaml") if not (incidental(o) and key_of(o).startswith(named))]
    return compose([*saved, *overrides])


def evaluate_all(runs: Sequence[Path], overrides: Sequence[str] = ()) -> list[Result]:
    """`evaluate` each run and print its metrics; several are also drawn side by side."""
    results = [evaluate(run, overrides) for run in runs]
    for result in results:
        print(summary_of(result))
    if len(runs) > 1 and (place := compare(runs, overrides)):
        print(f"Side by side: {place}")
    return results


def compare(runs: Sequence[Path], overrides: Sequence[str] = ()) -> Path | None:
    """Draw what finished runs make of the same rows into ``<output_dir>/comparisons/``; None if their data differ."""
    from healing_mnist.callbacks.figures import save
    from healing_mnist.callbacks.side_by_side import side_by_side

    first, *others = [_composed_again(run, overrides) for run in runs]
    changed = {key for cfg in others for key in difference({"data": plain(first.data)}, {"data": plain(cfg.data)})}
    if changed:
        log.info("not drawn side by side, the runs differ in %s", ", ".join(sorted(changed)))
        return None
    names = _short_names([run.resolve() for run in runs])
    data = build_data(first)
    data.setup()
    tasks = {name: load_task(run / "checkpoints" / "best.ckpt") for name, run in zip(names, runs, strict=True)}
    place = Path(first.output_dir) / "comparisons" / folder_name({"runs": "+".join(names)})
    save(place, "side_by_side", *side_by_side(tasks, data))
    return place


def _short_names(runs: Sequence[Path]) -> list[str]:
    """The shortest part of the paths that tells the runs apart: experiment, folder, both, or all of it."""
    ways = (lambda run: run.parent.name, lambda run: run.name, lambda run: f"{run.parent.name} {run.name}", str)
    every = [[way(run) for run in runs] for way in ways]
    return next(names for names in every if len(set(names)) == len(set(runs)))


def summary_of(result: Result) -> str:
    """Test metrics and where to look, for a person."""
    width = max(map(len, result.metrics), default=0)
    lines = [f"  {name:<{width}}  {value:.5g}" for name, value in result.metrics.items()]
    if result.collapsed:
        lines.append("  collapsed: the predictions are all but empty")
    chosen = f", epoch {int(result.best['epoch'])} chosen on validation" if result.best else ""
    return "\n".join(
        [
            f"Test{chosen}:",
            *lines,
            f"Figures:     {result.folder / 'figures'}",
            f"TensorBoard: tensorboard --logdir {shlex.quote(str(result.folder))}",
        ]
    )


def load_pretrained(task: Task, cfg: DictConfig) -> None:
    """Fill parts of the network from the run that `pretrained` names; that run is found finished, or made first."""
    stage = plain(cfg.get("pretrained")) or {}
    if not stage.get("modules"):
        return
    if stage.get("checkpoint"):
        path = Path(stage["checkpoint"])
    else:
        settings = flatten(stage.get("settings") or {})
        overrides = [f"experiment={stage['experiment']}", *(as_override(k, v) for k, v in settings.items())]
        log.info("this run needs a trained '%s'", stage["experiment"])
        path = train(compose(overrides), overrides).folder / "checkpoints" / "best.ckpt"
        L.seed_everything(cfg.seed, verbose=False)
    state = read_checkpoint(path)["state_dict"]
    for here, there in stage["modules"].items():
        prefix = f"network.{there}."
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        load_state(task.network.get_submodule(here), part, path)
    log.info("took %s from %s", ", ".join(stage["modules"]), path)


def finished(place: Path) -> Result | None:
    """What a finished run left in `place`; None when it is not finished."""
    try:
        found = json.loads((place / "metrics.json").read_text())
    except FileNotFoundError:
        return None
    return Result(place, found["metrics"], found["best"], found["objective"], found["collapsed"])


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Only one process at a time works in a run folder; a second one waits, and then finds the run finished."""
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / ".lock")
    try:
        lock.acquire(timeout=0.1)
    except Timeout:
        log.info("waiting for another process that is at work in %s", place)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _claim(place: Path, settings: dict[str, Any], overrides: Sequence[str]) -> None:
    """Write down what is run in `place`, or refuse when it is something else than before."""
    config = place / "config.yaml"
    if config.exists():
        changed = difference(plain(OmegaConf.load(config)), settings)
        if changed:
            lines = [f"{key}: {old} there, {new} now" for key, (old, new) in changed.items()]
            raise UserError(
                "\n  ".join([f"{place} holds a run with other settings:", *lines])
                + "\nChoose another run_dir, or start over with fresh=true, which deletes what is there."
            )
        return
    atomic_write(place / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(list(overrides))))
    atomic_write(config, OmegaConf.to_yaml(OmegaConf.create(settings)))


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Copy what the project and Lightning log into a file."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("healing_mnist", "lightning.pytorch")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


def hush() -> None:
    """Leave out what Lightning tells everybody and what does not apply here."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*smaller than the logging interval.*",
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        ".*found in the .* directory, but is not empty.*",
        ".*exists and is not empty.*",
        ".*`srun` command.*",
    ):
        warnings.filterwarnings("ignore", message)


def overrides_of_this_job() -> list[str]:
    """What the user wrote on the command line, or the sweep for this job."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _metrics_table(trainer: L.Trainer) -> MetricsTable:
    """The one of the trainer; an empty one where it has none."""
    return next((callback for callback in trainer.callbacks if isinstance(callback, MetricsTable)), MetricsTable())


def _measured(trainer: L.Trainer, place: Path, best: dict[str, float], objective: str) -> Result:
    metrics = {k: float(v) for k, v in sorted(trainer.callback_metrics.items()) if k.startswith("test/")}
    collapsed = any(getattr(callback, "collapsed", False) for callback in trainer.callbacks)
    return Result(place, metrics, best, best.get(objective), collapsed)


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "metrics": result.metrics,
        "best": result.best,
        "objective": result.objective,
        "collapsed": result.collapsed,
    }


def _write_environment(place: Path, seconds: float) -> None:
    packages = ("torch", "lightning", "hydra-core", "omegaconf", "torchmetrics", "scikit-learn", "numpy")
    cuda = torch.cuda.is_available()
    environment = {
        "seconds": round(seconds, 2),
        "commit": COMMIT,
        "uncommitted_changes": None if CHANGES is None else bool(CHANGES),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "machine": {
            "system": platform.platform(),
            "cpu": f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}",
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if cuda else None,
        },
    }
    atomic_write(place / "environment.json", json.dumps(environment, indent=2) + "\n")


def _processor() -> str:
    """The CPU's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _log_hparams(trainer: L.Trainer, cfg: DictConfig, result: Result) -> None:
    """Settings beside the final metrics, for TensorBoard's HParams tab."""
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    groups = essential({group: plain(cfg[group]) for group in ("data", "model", "task", "optimizer", "scheduler")})
    settings = {
        key.removesuffix("._target_"): value if isinstance(value, (int, float, bool)) else str(value)
        for key, value in groups.items()
        if not key.endswith(("._partial_", ".image_shape", ".num_classes", ".seed"))
    }
    if any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers):
        with SummaryWriter(str(result.folder)) as writer:
            # The metrics themselves were logged under these names when they were measured.
            for summary in hparams(settings | {"seed": cfg.seed}, result.metrics):
                writer.file_writer.add_summary(summary)
