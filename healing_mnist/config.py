"""Compose configurations, compare them, name their folders. Light: imports neither torch nor lightning."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from yaml import YAMLError

from healing_mnist.checks import UserError

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"

# Settings that say where things lie, what is shown or how it is computed, not what: they neither name a run nor set it
# apart.
INCIDENTAL = (
    "data.root",
    "data.cache",
    "pretrained.settings.data.root",
    "pretrained.settings.data.cache",
    "pretrained.settings.output_dir",
    "output_dir",
    "run_dir",
    "trainer.accelerator",
    "data.compile",
    "task.compile",
    "trainer.enable_progress_bar",
    "pretrained.settings.trainer.accelerator",
    "pretrained.settings.trainer.devices",
    "fresh",
    "keep_memory",
    "analysis",
    "pretrained.settings.analysis",
    "callbacks.progress",
    "callbacks.pruning",
    "callbacks.checkpoint.dirpath",
    "callbacks.last.dirpath",
    "logger",
)


def register_resolvers() -> None:
    """The functions that yaml files may call.

    ``source_shape:NAME``, ``source_classes:NAME``: what a base-image source says of itself; ``best_is:DIRECTION``: min
    or max; ``frames_of:DATA``: frames of its longest example, by `window` or `length`; ``one_of:DEVICES``: the one that
    is named, or 1 for any; ``interactive:``: whether a person is watching a terminal.
    """
    from healing_mnist.data import sources

    resolvers = {
        "source_shape": lambda name: ListConfig(sources.image_shape(name)),
        "source_classes": sources.num_classes,
        "best_is": lambda direction: {"minimize": "min", "maximize": "max"}.get(direction, direction),
        "frames_of": _frames_of,
        "one_of": lambda devices: devices if isinstance(devices, ListConfig) and len(devices) == 1 else 1,
        "interactive": lambda: sys.stderr.isatty(),
    }
    for name, function in resolvers.items():
        OmegaConf.register_new_resolver(name, function, replace=True)


def _frames_of(data: DictConfig) -> Any:
    frames = data.get("window", data.get("length"))
    if frames is None:
        why = "must be data of sequences, with data.window or data.length frames, or say model.window=6"
        raise UserError(f"data={data.get('_target_', '').rpartition('.')[2]}: {why}")
    return frames[-1] if isinstance(frames, ListConfig) and frames else frames  # a range, its longer end last


def compose(overrides: Sequence[str] = (), config_name: str = "train") -> DictConfig:
    """The configuration that `train.py` would use with these overrides; works inside and outside of Hydra's main.

    Raises Hydra's own exceptions for an unknown key or a malformed override; `cli.explain` words them.
    """
    register_resolvers()
    outside = not GlobalHydra.instance().is_initialized()
    with initialize_config_dir(str(CONF), version_base="1.3") if outside else nullcontext():
        return hydra_compose(config_name, overrides=list(overrides))


def plain(config: Any) -> Any:
    """Resolved plain Python containers."""
    return OmegaConf.to_container(config, resolve=True) if isinstance(config, (DictConfig, ListConfig)) else config


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists are values; an empty mapping is one too."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def key_of(override: str) -> str:
    """What an override is about: ``+a.b=1`` -> ``a.b``."""
    return override.lstrip("+~").split("=", 1)[0]


def dotted(override: str) -> str:
    """What an override is about, with dots where a group has slashes: ``+data/sequences@x=y`` -> ``data.sequences``."""
    return key_of(override).split("@")[0].replace("/", ".")


def incidental(override: str) -> bool:
    """Whether an override, or the key of a setting, is about one of `INCIDENTAL`."""
    key = key_of(override)
    return any(key == name or key.startswith(f"{name}.") for name in INCIDENTAL)


def essential(config: Mapping[str, Any]) -> dict[str, Any]:
    """The flat settings that decide what a run computes; which device does so, if it is one, is none of them."""
    flat = {key: value for key, value in flatten(config).items() if not incidental(key)}
    if isinstance(devices := flat.get("trainer.devices"), list) and len(devices) == 1:
        flat["trainer.devices"] = 1
    return flat


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Essential settings that differ, as key -> (old, new); None where a side lacks the key."""
    a, b = essential(old), essential(new)
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def saved_settings(path: Path) -> dict[str, Any]:
    """The settings that a run has left in `path`. Raises UserError where there are none, or the file is damaged."""
    found = _saved(path)
    if not isinstance(found, DictConfig) or "data" not in found:
        raise UserError(f"{path}: damaged (it holds no settings of a run)")
    return plain(found)


def saved_overrides(path: Path) -> list[str]:
    """The overrides that a run has left in `path`. Raises UserError where there are none, or the file is damaged."""
    return list(_saved(path))


def _saved(path: Path) -> DictConfig | ListConfig:
    try:
        return OmegaConf.load(path)
    except FileNotFoundError:
        raise UserError(f"{path}: not there; the folder of a run is not complete without it") from None
    except (OSError, ValueError, YAMLError) as error:
        raise UserError(f"{path}: damaged ({str(error).splitlines()[0]})") from error


def there_and_now(changed: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """A line for each setting that a folder holds otherwise than it is asked for."""
    return [f"{key}: {old} there, {new} now" for key, (old, new) in changed.items()]


def folder(cfg: DictConfig) -> Path:
    """Where a run lives: ``<output_dir>/<experiment>/<what differs from the experiment as it is in conf>``.

    The same settings always have the same folder, however they were said; `run_dir` overrules it.
    """
    if cfg.get("run_dir"):
        return Path(cfg.run_dir)
    try:
        base = compose([f"experiment={cfg.name}"] if cfg.name else [])
    except MissingConfigException:
        why = "is the experiment's own; say run_dir=... to choose a run's folder"
        raise UserError(f"name={cfg.name}: {why}") from None
    # As written, not resolved: what follows from another setting is not named again.
    old, new = (OmegaConf.to_container(config, resolve=False) for config in (base, cfg))
    present, different = essential(new), difference(old, new)
    known = essential(old).keys()
    shown = {key for key in present if key in known or "${" not in str(present[key])}
    changed = {key: present[key] for key in different if key in shown}
    for gone in (_gone(key, present) for key in different if key not in present):
        if f"{gone.rpartition('.')[0]}._target_" not in changed:  # else what stands there now says so
            changed[gone] = present.get(gone, {})
    return Path(cfg.output_dir) / (cfg.name or "unnamed") / folder_name(changed)


def _gone(key: str, present: Mapping[str, Any]) -> str:
    """What is missing as a whole where `key` is: the shortest beginning of it under which there is nothing."""
    parts = key.split(".")
    beginnings = (".".join(parts[:i]) for i in range(1, len(parts) + 1))
    return next(name for name in beginnings if not any(other.startswith(f"{name}.") for other in present))


def folder_name(settings: Mapping[str, Any], limit: int = 120) -> str:
    """A readable name for a set of settings: ``latent_dim=8,source=mnist``; ``default`` for none."""
    if not settings:
        return "default"
    keys = _short_keys(settings)
    name = ",".join(f"{keys[key]}={_short_value(key, value)}" for key, value in settings.items())
    if len(name) <= limit:
        return name
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"{name[: limit - 9]}~{digest}"


def evaluation_name(overrides: Sequence[str]) -> str:
    """Where `evaluate.py` with these overrides writes, below the folder of the run it measures."""
    return f"evaluations/{folder_name(settings_of(overrides))}"


def settings_of(overrides: Sequence[str]) -> dict[str, str]:
    """What overrides say of data and analysis, and of anything else that is not incidental."""
    said = [o for o in overrides if key_of(o).split(".")[0] == "analysis" or not incidental(o)]
    return {dotted(o): "none" if o.startswith("~") else o.partition("=")[2] for o in said}


def _short_keys(settings: Mapping[str, Any]) -> dict[str, str]:
    """The last part of each key where that is unambiguous, else the whole key."""
    last = [key.removesuffix("._target_").rsplit(".", 1)[-1] for key in settings]
    return {key: short if last.count(short) == 1 else key for key, short in zip(settings, last, strict=True)}


def _short_value(key: str, value: Any) -> str:
    text = "null" if value is None else "none" if value == {} else str(value)
    if key.endswith("_target_"):
        text = text.rsplit(".", 1)[-1]
    text = re.sub(r"^[^\w.+\-]+|[^\w.+\-]+$", "", text)  # brackets at the ends; a minus there is a sign
    return re.sub(r"[^\w.+\-]+", "-", text)


def elsewhere(launcher: str) -> bool:
    """Whether the jobs of a launcher, by the name of its class, run on other machines."""
    return not launcher.endswith((".SlotLauncher", ".BasicLauncher"))


def as_override(key: str, value: Any) -> str:
    """`key=value` in Hydra's grammar."""
    return f"{key}={_quoted(value)}"


def _quoted(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_quoted, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{_quoted(v)}" for k, v in value.items()) + "}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
