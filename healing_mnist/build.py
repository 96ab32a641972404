"""From settings to objects, and every mistake in them found first."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import get_object, instantiate
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import StrategyRegistry
from omegaconf import DictConfig, OmegaConf

from healing_mnist.checkpoints import AtomicCheckpoints, load_state, read_checkpoint
from healing_mnist.checks import (
    NonNegativeFloat,
    Range,
    UserError,
    mismatch,
    problems_of,
    refuse,
    shown,
    suggestion,
    told,
)
from healing_mnist.config import CONF, elsewhere, flatten, key_of, plain
from healing_mnist.data.base import RenderedData
from healing_mnist.lean import Unmeasured, drop_idle_hooks
from healing_mnist.tasks.base import Task, test_prefix

OWN = {  # the settings of a run that belong to none of the groups
    "name": str | None,
    "seed": Annotated[int, Range(low=0, high=2**32 - 1)],  # what NumPy takes
    "objective": str,
    "direction": Literal["minimize", "maximize"],
    "output_dir": str,
    "run_dir": str | None,
    "fresh": bool,
    "keep_memory": bool,
}
OF_OPTIMIZERS = {  # what those of PyTorch refuse without a word on what they take
    **dict.fromkeys(("lr", "weight_decay", "momentum", "eps", "alpha"), NonNegativeFloat),
    "betas": list[Annotated[float, Range(low=0, high=1, below=True)]],
}
GROUPS = "data", "model", "task", "optimizer", "scheduler", "callbacks", "analysis", "logger", "trainer"
PRECISIONS = "32-true", "bf16-mixed", "16-mixed"


def check_own(cfg: DictConfig) -> None:
    """Raise one UserError that names every mistake in the settings that belong to no group."""
    if cfg.get("sweep"):
        name = HydraConfig.get().runtime.choices.get("sweep") if HydraConfig.initialized() else "..."
        raise UserError(f"sweep={name}: makes many runs of one; say `python sweep.py sweep={name}`, or add -m")
    own = {key: (cfg[key], mismatch(cfg[key], hint)) for key, hint in OWN.items()}
    refuse([f"{key}={shown(value)}: must be {allowed}" for key, (value, allowed) in own.items() if allowed])


def check(cfg: DictConfig) -> None:
    """Raise one UserError that names every mistake found in the settings, before any work starts."""
    check_own(cfg)
    settings = _resolved(cfg)
    of = {group: _group_problems(settings, (group,)) for group in GROUPS}
    found = [_with_origin(problem, cfg.name) for problems in of.values() for problem in problems]
    found += _clipping_problems(settings["trainer"], settings["optimizer"])
    if not of["data"]:
        found += _tried(_data_problems, settings)
    if not any(of[group] for group in ("model", "task", "optimizer", "scheduler")):
        found += _tried(_task_problems, settings)
    refuse(list(dict.fromkeys(found)))


def _tried(look: Callable[[dict[str, Any]], list[str]], settings: dict[str, Any]) -> list[str]:
    """The problems that `look` finds, or the one that stopped it."""
    try:
        return look(settings)
    except Exception as error:
        return [told(error)]


def _data_problems(settings: dict[str, Any]) -> list[str]:
    data, noted = build_data(settings), settings["data"].get("image_shape")  # which the model is given
    if noted in (None, list(data.image_shape)):
        return []
    return [f"data.image_shape={shown(noted)}: {type(data).__name__} has {shown(list(data.image_shape))}"]


def _task_problems(settings: dict[str, Any]) -> list[str]:
    with torch.device("meta"):
        task = build_task(settings)
    trains = any(parameter.requires_grad for parameter in task.parameters())
    found = [] if trains else [f"model: {type(task.network).__name__} has no weights to train"]
    found += _optimizer_problems(settings["optimizer"])
    return found + _metric_problems(settings, type(task).__name__, task.validation_metrics())


def _metric_problems(settings: Mapping[str, Any], task: str, metrics: Mapping[str, str | None]) -> list[str]:
    """Metrics that a setting names and the task does not log, and an objective that would choose the worst epoch."""
    names, objective = list(metrics), settings["objective"]
    watching = {"objective": objective}
    nodes = {f"callbacks.{key}": node for key, node in (settings["callbacks"] or {}).items()}
    for key, node in (nodes | {"scheduler": settings["scheduler"]}).items():
        if isinstance(node, Mapping) and node.get("monitor") not in (None, objective):
            watching[f"{key}.monitor"] = node["monitor"]
    found = [
        f"{key}={name}: not logged by {task}{suggestion(name, names)}; allowed: {', '.join(names)}"
        for key, name in watching.items()
        if name not in names and (key == "objective" or not str(name).startswith("train/"))
    ]
    if (way := metrics.get(objective)) not in (None, settings["direction"]):
        found.append(f"direction={settings['direction']}: would choose the worst epoch; {objective} asks for {way}")
    return found


def metrics_of(cfg: DictConfig) -> list[str]:
    """What a run of these settings, checked before, may log in validation and test: names, or patterns of `fnmatch`.

    A callback of ours says in `logs` what it adds in the test. Parts of one's own may log anything.
    """
    settings = _resolved(cfg)
    groups = {key: settings.get(key) or {} for key in ("callbacks", "analysis")}
    nodes = [node for group in groups.values() for node in group.values() if node]
    targets = [node["_target_"] for node in (settings["data"], settings["task"], *nodes)]
    if not all(target.startswith(("healing_mnist.", "lightning.")) for target in targets):
        return ["*"]
    data = build_data(settings)
    with torch.device("meta"):
        task = build_task(settings)
    added = [name for node in nodes for name in getattr(get_object(node["_target_"]), "logs", ())]
    prefixes = [test_prefix(data, number) for number in range(len(data.test_splits))]
    own = [*task.validation_metrics(), *task.test_metrics(data)]
    return own + [f"{prefix}/{name}" for prefix in prefixes for name in added]


def _optimizer_problems(settings: dict[str, Any]) -> list[str]:
    """What an optimizer of nothing says of its values, which only its constructor compares."""
    try:
        instantiate(settings)([torch.nn.Parameter(torch.zeros(1))])
    except (ValueError, RuntimeError) as error:  # instantiate leaves it bare: what it makes is a partial
        allowed = {key: mismatch(settings[key], hint) for key, hint in OF_OPTIMIZERS.items() if key in settings}
        found = [f"optimizer.{key}={settings[key]}: must be {what}" for key, what in allowed.items() if what]
        return found or [f"optimizer: {error}"]
    return []


def _with_origin(problem: str, experiment: str | None) -> str:
    """Say that a setting its group does not know came from the experiment, where the user did not name it."""
    key = problem.partition("=")[0]
    said = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    if experiment is None or ": unknown setting of" not in problem or key in map(key_of, said):
        return problem
    best = HydraConfig.get().runtime.choices.get("best") if said else None
    theirs = best and flatten(OmegaConf.to_container(OmegaConf.load(CONF / "best" / f"{best}.yaml"), resolve=False))
    who = f"best={best}" if theirs and key in theirs else f"experiment={experiment}"
    return f"{problem} ({who} sets it, which is made for another {key.split('.')[0]})"


def check_groups(cfg: DictConfig, *groups: str) -> None:
    """Raise one UserError that names every mistake in the settings of some groups, for work that builds no more."""
    refuse(_group_problems(_resolved(cfg), groups))


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    cfg = cfg.copy()
    cfg.run_dir = cfg.run_dir or cfg.output_dir  # loggers and checkpoints want a place; which one does not matter here
    needed = "data", "model", "task", "optimizer", "trainer"
    refuse([f"{group}: a run needs one; leave out ~{group}" for group in needed if not cfg.get(group)])
    return {"callbacks": {}, "scheduler": {}} | plain(cfg)


def _group_problems(settings: Mapping[str, Any], groups: Sequence[str]) -> list[str]:
    found = []
    for group in (group for group in groups if group in ("callbacks", "analysis", "logger")):
        for key, node in (settings.get(group) or {}).items():
            if node is not None and not (isinstance(node, Mapping) and "_target_" in node):
                found.append(f"{group}.{key}={node}: must be a group of settings with a _target_, or null")
    for group in groups:
        node = _judged_by_signature(group, settings.get(group) or {})
        found += problems_of(node, group, supplied=("network",) if group == "task" else ())
    return found + (_trainer_problems(settings["trainer"]) if "trainer" in groups else [])


def _trainer_problems(trainer: Mapping[str, Any]) -> list[str]:
    in_sweep = HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN
    away = in_sweep and elsewhere(HydraConfig.get().launcher["_target_"])
    found = [] if away else _device_problems(trainer)  # only the nodes know what they have
    for key in ("max_epochs", "accumulate_grad_batches", "check_val_every_n_epoch", "num_nodes"):
        if isinstance(trainer.get(key), int) and trainer[key] < 1:  # what is no integer is found already
            found.append(f"trainer.{key}={trainer[key]}: must be an integer at least 1")
    for key in ("limit_train_batches", "limit_val_batches", "limit_test_batches"):
        limit, least = trainer.get(key), int(key == "limit_train_batches")
        share = isinstance(limit, float)
        if isinstance(limit, (int, float)) and (not 0 <= limit <= (1 if share else limit) or limit == 0 < least):
            allowed = f"a share in {'(' if least else '['}0, 1], or a whole number of batches, at least {least}"
            found.append(f"trainer.{key}={limit}: must be {allowed}")
    strategy = trainer.get("strategy", "auto")
    if isinstance(strategy, str) and strategy != "auto" and strategy not in StrategyRegistry:
        found.append(
            f"trainer.strategy={strategy}: must be one of auto, {', '.join(StrategyRegistry)}"
            + suggestion(strategy, list(StrategyRegistry))
        )
    if any(word in str(strategy) for word in ("spawn", "fork", "notebook")):
        found.append(f"trainer.strategy={strategy}: its processes would keep what they learn to themselves; use ddp")
    if (precision := trainer.get("precision")) not in (None, 32, "32", *PRECISIONS):
        found.append(f"trainer.precision={precision}: must be one of {', '.join(PRECISIONS)}, for frames of float32")
    if in_sweep and starts_processes(trainer):
        found.append(
            f"trainer.strategy={strategy}, trainer.devices={trainer.get('devices')}: would start the whole sweep anew "
            "in each of its processes; in a sweep give every job one device"
        )
    return found


def _clipping_problems(trainer: Mapping[str, Any], optimizer: Mapping[str, Any]) -> list[str]:
    clip, precision = trainer.get("gradient_clip_val"), str(trainer.get("precision"))
    if not (clip and "mixed" in precision and optimizer.get("fused")):
        return []
    return [
        f"trainer.gradient_clip_val={clip}: a fused optimizer leaves no place for it where trainer.precision is "
        f"{precision}; add optimizer.fused=false"
    ]


def starts_processes(trainer: Mapping[str, Any]) -> bool:
    """Whether it trains in several processes: by its strategy, or by the number of devices where that is left open."""
    strategy, devices = str(trainer.get("strategy", "auto")), trainer.get("devices", 1)
    if strategy != "auto":
        return strategy.startswith(("ddp", "fsdp"))
    if devices in ("auto", -1, "-1"):  # all there are; of a CPU, one
        return trainer.get("accelerator") != "cpu" and torch.cuda.device_count() > 1
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return len(devices) > 1
    return _counts(devices) and int(devices) > 1


def _counts(devices: Any) -> bool:
    """Whether this says which devices."""
    return not isinstance(devices, str) or devices == "auto" or devices.lstrip("-").isdecimal()


def _device_problems(trainer: Mapping[str, Any]) -> list[str]:
    found = []
    name, gpu = trainer.get("accelerator", "auto"), torch.cuda.is_available() or torch.backends.mps.is_available()
    if name not in ("auto", "gpu"):
        if name not in AcceleratorRegistry:
            found.append(f"trainer.accelerator={name}: must be one of auto, gpu, {', '.join(AcceleratorRegistry)}")
        elif not AcceleratorRegistry.get(name).is_available():
            found.append(f"trainer.accelerator={name}: there is none on this machine; use trainer=cpu")
    elif name == "gpu" and not gpu:
        found.append("trainer.accelerator=gpu: there is no GPU here, or torch cannot see it; use trainer=cpu")
    if not _counts(trainer.get("devices", 1)):
        found.append(f"trainer.devices={trainer['devices']}: must be how many, a list of their numbers, or auto")
    devices, most = trainer.get("devices"), max(os.cpu_count() or 1, 2)  # two on one core: slow, but ddp can be tried
    on_cpu = name == "cpu" or (name == "auto" and not gpu)
    if on_cpu and isinstance(devices, list):
        found.append(f"trainer.devices={devices}: a CPU has no numbers; say how many processes, 1 to {most}")
    if on_cpu and isinstance(devices, int) and not 1 <= devices <= most:
        found.append(f"trainer.devices={devices}: on a CPU each is a process; 1 to {most} on this machine")
    return found


def _judged_by_signature(group: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a group less those that its constructor does not see, or allows more of than we do."""
    if group == "trainer":
        return {key: value for key, value in settings.items() if key != "precision"}
    return _without_notes(settings) if group == "data" else dict(settings)


def _without_notes(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data settings less the two that only tell the model what to expect."""
    return {key: value for key, value in data.items() if key not in ("image_shape", "num_classes")}


def build_data(cfg: DictConfig | Mapping[str, Any]) -> RenderedData:
    return _made("data", _without_notes(plain(cfg["data"])), RenderedData)


def build_task(cfg: DictConfig | Mapping[str, Any]) -> Task:
    """Network and task, untrained; they carry the settings they were built from."""
    parts = {key: plain(cfg.get(key)) or {} for key in ("model", "task", "optimizer", "scheduler")}
    task = _made(
        "task",
        parts["task"],
        Task,
        network=_made("model", parts["model"], torch.nn.Module),
        optimizer=instantiate(parts["optimizer"], _convert_="all"),
        scheduler=instantiate(parts["scheduler"], _convert_="all") or None,
    )
    task.config = parts
    return task


def _made(group: str, settings: Mapping[str, Any], kind: type, **parts: Any) -> Any:
    """What `settings` name, which must be a `kind`."""
    try:
        made = instantiate(settings, **parts, _convert_="all")
    except InstantiationException as error:
        raise UserError(told(error, f"{group}={str(settings['_target_']).rsplit('.', 1)[-1]}")) from error
    if not isinstance(made, kind):
        raise UserError(f"{group}._target_={settings.get('_target_')}: must be a {kind.__module__}.{kind.__name__}")
    return made


def make_trainer(cfg: DictConfig, place: Path, **changes: Any) -> L.Trainer:
    """The trainer with loggers, callbacks and figures that all write below `place`."""
    cfg = cfg.copy()
    OmegaConf.update(cfg, "run_dir", str(place))
    settings = plain(cfg)
    groups = {name: dict(settings.get(name) or {}) for name in ("callbacks", "analysis", "logger")}
    if not settings["trainer"].get("enable_progress_bar", True):
        groups["callbacks"].pop("progress", None)
    kinds = {"callbacks": L.Callback, "analysis": L.Callback, "logger": Logger}
    made = {
        name: [_made(f"{name}.{key}", node, kinds[name]) for key, node in group.items() if node]
        for name, group in groups.items()
    }
    trainer = instantiate(
        {"profiler": Unmeasured()} | settings["trainer"] | changes,
        default_root_dir=str(place),
        callbacks=made["callbacks"] + made["analysis"],
        logger=made["logger"] or False,
        plugins=[AtomicCheckpoints()],
        _convert_="all",
    )
    drop_idle_hooks(trainer)
    return trainer


def load_task(path: Path) -> Task:
    """The trained task in a checkpoint, by itself: no yaml is needed. In evaluation mode, on the CPU."""
    checkpoint = read_checkpoint(path)
    if not checkpoint.get("config"):
        raise UserError(f"{path}: a checkpoint of something else, it does not say which network it belongs to")
    config = checkpoint["config"]
    config["task"]["compile"] = False
    task = build_task(config)
    load_state(task, checkpoint["state_dict"], path)
    return task.eval()
