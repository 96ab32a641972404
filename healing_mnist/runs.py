"""One run: build it from a configuration, train it, test it, and keep all of it in one folder.

A run folder holds config.yaml (resolved), overrides.yaml, environment.json (versions, commit, seconds), run.log,
TensorBoard events, metrics.csv (a row per epoch), figures/, checkpoints/best.ckpt and last.ckpt, and metrics.json,
written last: its presence means that the run is finished.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from omegaconf import DictConfig, OmegaConf

from healing_mnist.build import build_data, build_task, check, check_own, make_trainer, starts_processes
from healing_mnist.callbacks.metrics_table import MetricsTable
from healing_mnist.checkpoints import load_state, read_checkpoint
from healing_mnist.checks import UserError
from healing_mnist.config import (
    as_override,
    compose,
    difference,
    dotted,
    essential,
    flatten,
    folder,
    incidental,
    plain,
    saved_overrides,
    saved_settings,
    there_and_now,
)
from healing_mnist.environment import write_environment
from healing_mnist.files import atomic_write, empty, may_be_emptied, read_metrics
from healing_mnist.memory import keep_freed_memory
from healing_mnist.tasks.base import Task
from healing_mnist.tryout import check_data, check_limits, try_out

TERMINATED = 128 + signal.SIGTERM  # exit code of what SIGTERM ends, in every shell
log = logging.getLogger(__name__)


@dataclass
class Result:
    """What a finished run leaves: its folder and what metrics.json says."""

    folder: Path
    metrics: dict[str, float]  # test metrics
    best: dict[str, float]  # `epoch` chosen on validation, with the validation metrics it had
    objective: float | None  # the validation metric the run was optimised for, at that epoch
    collapsed: bool = False

    def save(self) -> None:
        """Write metrics.json: from now on the run is finished."""
        found = {key: value for key, value in asdict(self).items() if key != "folder"}
        atomic_write(self.folder / "metrics.json", json.dumps(found, indent=2) + "\n")


def train(cfg: DictConfig, overrides: Sequence[str] = ()) -> Result | None:
    """Train, choose the best epoch on validation, test it once; or return what an earlier, equal run found.

    An unfinished run continues from its last finished epoch. Returns None in the processes that ddp adds to the first.

    Raises:
        UserError: a mistake in the settings, the folder holds a run of other settings, or, with `fresh`, no run at all.
    """
    check_own(cfg)
    place, parts, started = folder(cfg), None, time.perf_counter()
    if cfg.fresh or finished(place) is None:
        if not _leads(cfg):
            return _train(cfg, place, started, *prepare(cfg, place))
        check(cfg)
        if cfg.fresh:
            may_be_emptied(place, "overrides.yaml", "run_dir")
        parts = prepare(cfg, place)  # before anything is left on the disk, or deleted
    with locked(place):
        if cfg.fresh:  # not before: another process may be at work there
            empty(place, "overrides.yaml", "run_dir")
        _claim(place, plain(cfg), overrides)
        if (found := finished(place)) is not None:
            log.info("already finished, nothing to do: %s", place)
            if saved_settings(place / "config.yaml").get("analysis") != plain(cfg).get("analysis"):
                log.info("its figures stay as they are; evaluate.py run=%s analysis=... draws others", place)
            return found
        with logging_to(place / "run.log"):
            return _train(cfg, place, started, *(parts or prepare(cfg, place)))


def _leads(cfg: DictConfig) -> bool:
    """Whether this process keeps the run's folder: the first of all that ddp uses, on however many nodes."""
    environ, trainer = os.environ, cfg.trainer
    if not (trainer.num_nodes > 1 or starts_processes(trainer)):
        return True  # also as an earlier stage of a run under ddp: the second process waits, and finds it finished
    if (rank := environ.get("RANK", environ.get("SLURM_PROCID"))) is not None:
        return int(rank) == 0
    node = environ.get("NODE_RANK", environ.get("GROUP_RANK", 0))
    return int(environ.get("LOCAL_RANK", 0)) == int(node) == 0


def prepare(cfg: DictConfig, place: Path, **changes: Any) -> tuple[L.LightningDataModule, Task, L.Trainer]:
    """All that a run needs, its trainer with `changes`, found to fit together; writes nothing into `place`.

    Raises UserError where it does not fit.
    """
    hush()
    L.seed_everything(cfg.seed, verbose=False)
    data, task, trainer = build_data(cfg), build_task(cfg), make_trainer(cfg, place, **changes)
    if (path := OmegaConf.select(cfg, "pretrained.checkpoint")) and cfg.pretrained.get("modules"):
        try:
            load_pretrained(task, cfg, Path(path))
        except UserError as error:
            raise UserError(f"pretrained.checkpoint={error}") from error
    if cfg.task.get("compile") or cfg.data.get("compile"):  # compiled for two rows, a try would take its time
        data.setup()
        check_data([task, *trainer.callbacks], data)
    else:
        try_out(task, data, trainer.callbacks)
    check_limits(trainer, data, "train", "val", "test")
    return data, task, trainer


def _train(
    cfg: DictConfig, place: Path, started: float, data: L.LightningDataModule, task: Task, trainer: L.Trainer
) -> Result | None:
    if cfg.keep_memory and not keep_freed_memory():
        log.warning("keep_memory=true changes nothing here: the C library is not glibc")
    before = time.perf_counter()
    if source := load_earlier_stage(task, cfg):
        log.info("took %s from %s", ", ".join(cfg.pretrained.modules), source)
    started += time.perf_counter() - before  # an earlier stage is a run of its own
    last = place / "checkpoints" / "last.ckpt"
    if last.exists():
        _check_resumable(last, place / "checkpoints" / "best.ckpt")
        log.info("continuing from %s", last)
    with interruptible(trainer):
        trainer.fit(task, data, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    table = _metrics_table(trainer)
    if trainer.world_size > 1:
        torch.distributed.destroy_process_group()
        if trainer.global_rank > 0:
            return None
        trainer = single_trainer(cfg, place)
    epoch, best = len(table.rows), place / "checkpoints" / "best.ckpt"  # the last one where nothing was validated
    if best.exists():
        checkpoint = read_checkpoint(best)
        task.load_state_dict(checkpoint["state_dict"])
        epoch = checkpoint["epoch"] + 1
    with interruptible(trainer):
        trainer.test(task, data, verbose=False)
    result = measured(trainer, place, table.row(epoch), cfg.objective)
    write_environment(place, seconds=table.seconds_before + time.perf_counter() - started)
    _log_hparams(trainer, cfg, result)
    result.save()
    return result


def _check_resumable(last: Path, best: Path) -> None:
    """Name a damaged checkpoint that a run shall continue from, or one of its best epoch that is lost or damaged."""
    try:
        states = read_checkpoint(last).get("callbacks", {}).values()
        if any(Path(state.get("best_model_path") or "").name == best.name for state in states):
            read_checkpoint(best)
    except UserError as error:
        raise UserError(f"{error}. To train the run anew delete {last}, or say fresh=true.") from error


@contextmanager
def interruptible(trainer: L.Trainer) -> Iterator[None]:
    """Let Ctrl-C be what it is, which Lightning makes an exit without a word of it, and SIGTERM an exit with a code.

    A training ends after the step in which SIGTERM came, which is Lightning's way, a test at once.
    """
    here = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, partial(_end, trainer)) if here else None  # Lightning calls it, too
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        sys.exit(error.code or TERMINATED)
    finally:
        if here:
            signal.signal(signal.SIGTERM, before)


def _end(trainer: L.Trainer, *_: Any) -> None:
    if trainer.state.fn is not TrainerFn.FITTING:
        sys.exit(TERMINATED)


def single_trainer(cfg: DictConfig, place: Path) -> L.Trainer:
    """One that tests in one process, whose callbacks then see all rows."""
    devices = plain(cfg.trainer.devices)
    first = devices[:1] if isinstance(devices, list) else 1
    return make_trainer(cfg, place, devices=first, strategy="auto", num_nodes=1)


def summary_of(result: Result) -> str:
    """Test metrics and where to look, for a person."""
    width = max(map(len, result.metrics), default=0)
    lines = [f"  {name:<{width}}  {value:.5g}" for name, value in result.metrics.items()]
    if result.collapsed:
        lines.append("  collapsed: the predictions are all but empty")
    how = "chosen on validation" if result.objective is not None else "the last: nothing was validated"
    chosen = f", epoch {int(result.best['epoch'])} {how}" if result.best else ""
    if (figures := result.folder / "figures").exists():
        lines.append(f"Figures:     {figures}")
    if any(result.folder.glob("events.out.tfevents.*")):
        lines.append(f"TensorBoard: tensorboard --logdir {shlex.quote(str(result.folder))}")
    return "\n".join([f"Test{chosen}:", *lines])


def load_earlier_stage(task: Task, cfg: DictConfig) -> Path | None:
    """Fill parts of the network from the run that `pretrained` names; that run is found finished, or made first.

    Returns where they are from; with `pretrained.checkpoint`, they are there already.
    """
    stage = plain(cfg.get("pretrained")) or {}
    if not stage.get("modules"):
        return None
    if stage.get("checkpoint"):
        return Path(stage["checkpoint"])
    settings = flatten(stage.get("settings") or {})
    overrides = [f"experiment={stage['experiment']}", *(as_override(k, v) for k, v in settings.items())]
    log.info("this run needs a trained '%s'", stage["experiment"])
    source = train(compose(overrides), overrides).folder / "checkpoints" / "best.ckpt"
    load_pretrained(task, cfg, source)
    return source


def load_pretrained(task: Task, cfg: DictConfig, path: Path) -> None:
    """Fill the parts of the network that `pretrained.modules` names from a checkpoint.

    Raises UserError where it is not there, damaged, or of another model.
    """
    state = read_checkpoint(path)["state_dict"]
    for here, there in cfg.pretrained.modules.items():
        prefix = f"network.{there}."
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        load_state(task.network.get_submodule(here), part, path)


def finished(place: Path) -> Result | None:
    """What a finished run left in `place`; None when it is not finished."""
    try:
        found = read_metrics(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Result(place, **found)


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Only one process at a time works in a run folder; a second one waits, and then finds the run finished."""
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"run_dir={place}: cannot be made ({error.strerror}); see output_dir") from error
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
        if changed := difference(saved_settings(config), settings):
            raise UserError(
                "\n  ".join([f"{place} holds a run with other settings:", *there_and_now(changed)])
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
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*smaller than the logging interval.*",
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        ".*found in the .* directory, but is not empty.*",
        ".*exists and is not empty.*",
        ".*`srun` command.*",
        ".*in eval mode at the start of training.*",  # the frozen encoder
        ".*sync_dist=True.* when logging on epoch level.*",  # scores are gathered before they are logged
    ):
        warnings.filterwarnings("ignore", message)


def overrides_of_this_job() -> list[str]:
    """What the user wrote on the command line, or the sweep for this job."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _metrics_table(trainer: L.Trainer) -> MetricsTable:
    """The one of the trainer; an empty one where it has none."""
    return next((callback for callback in trainer.callbacks if isinstance(callback, MetricsTable)), MetricsTable())


def measured(trainer: L.Trainer, place: Path, best: dict[str, float], objective: str) -> Result:
    """What `trainer` found in its test; `best` is the row of the epoch that validation chose, empty where none was."""
    metrics = {k: float(v) for k, v in sorted(trainer.callback_metrics.items()) if k.startswith("test/")}
    collapsed = any(getattr(callback, "collapsed", False) for callback in trainer.callbacks)
    return Result(place, metrics, best, best.get(objective), collapsed)


def _short(key: str, value: str) -> str:
    """A class by its own name."""
    return value.rpartition(".")[2] if key.endswith("._target_") else value


def _log_hparams(trainer: L.Trainer, cfg: DictConfig, result: Result) -> None:
    """Settings beside the final metrics, for TensorBoard's HParams tab."""
    if not any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers):
        return
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    groups = essential({group: plain(cfg[group]) for group in ("data", "model", "task", "optimizer", "scheduler")})
    settings = {
        key.removesuffix("._target_"): value if isinstance(value, (int, float, bool)) else _short(key, str(value))
        for key, value in groups.items()
        if not key.endswith(("._partial_", ".image_shape", ".num_classes", ".seed"))
    }
    # What was said beside these, lest what a sweep varies have no column: experiment, trainer.max_epochs.
    said = result.folder / "overrides.yaml"
    for override in saved_overrides(said) if said.exists() else ():
        key, _, text = override.partition("=")
        value = OmegaConf.select(cfg, dotted(key))
        if text and dotted(key) not in groups and not incidental(override):
            settings[dotted(key)] = value if isinstance(value, (int, float, bool)) else text
    with SummaryWriter(str(result.folder)) as writer:
        # The metrics themselves were logged under these names when they were measured. Without the first summary, which
        # says what this run has, TensorBoard looks at all runs, and puts the settings in which they differ first.
        for summary in hparams(settings | {"seed": cfg.seed}, result.metrics)[1:]:
            writer.file_writer.add_summary(summary)
