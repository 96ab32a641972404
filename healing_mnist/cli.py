"""The command line under the three scripts: Hydra, with one clear message where the user made a mistake."""

from __future__ import annotations

import functools
import logging.config
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, InterpolationResolutionError, OmegaConfBaseException

from healing_mnist.checks import UserError, suggestion, told
from healing_mnist.config import CONF, compose, flatten, key_of, plain, register_resolvers


def main(task: Callable[[DictConfig], Any], config_name: str) -> None:
    """Run `task` with the configuration the command line composes; never returns a traceback for a user's mistake."""
    # With this Hydra hands exceptions on instead of printing its own account of them.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    from healing_mnist import sweeps

    register_resolvers()
    if {"-h", "--help"} & set(sys.argv[1:]):
        overrides = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
        guarded(lambda: print(help_text(config_name, overrides)))
        return
    sweeps.register()
    if {"-m", "--multirun"} & set(sys.argv[1:]):
        from healing_mnist.sweeps import points

        sys.argv[1:] = guarded(lambda: points.deferred(sys.argv[1:]))

    @functools.wraps(task)
    def job(cfg: DictConfig) -> Any:
        return guarded(lambda: task(cfg))  # here too, or Hydra adds words of its own

    guarded(lambda: hydra.main(config_path=str(CONF), config_name=config_name, version_base="1.3")(job)())


def help_text(config_name: str, overrides: Sequence[str]) -> str:
    """Groups with their options, and every setting with its value; Hydra's own help takes a second longer."""
    config, script = compose(overrides, config_name), Path(sys.argv[0]).name
    groups = {}
    for path in sorted(CONF.rglob("*.yaml")):
        group = path.parent.relative_to(CONF).as_posix()
        if group not in (".", "study") and not group.startswith("hydra/"):
            groups.setdefault(group, []).append(path.stem)
    sweeps: list[str] = []
    if config.get("sweep"):
        launchers = {path.stem: path for path in sorted((CONF / "hydra/launcher").glob("*.yaml"))}
        chosen = next((o.split("=", 1)[1] for o in overrides if o.startswith("hydra/launcher=")), "slots")
        sweeps = [f"Where the jobs run, each overridden with hydra.launcher.KEY=VALUE (hydra/launcher={chosen}):\n"]
        sweeps += [launchers[chosen].read_text() if chosen in launchers else "(one of Hydra's own)\n"]
        groups["hydra/launcher"] = list(launchers)
    listed = [f"{group}: {', '.join(options)}" for group, options in groups.items()]
    return "\n".join(
        [
            f"{script}: {(sys.modules['__main__'].__doc__ or '').strip()}",
            "\nGroups, each exchanged as a whole with GROUP=OPTION; options with -m are swept:\n",
            *(textwrap.fill(line, 110, initial_indent="  ", subsequent_indent="    ") for line in listed),
            "\nSettings, each overridden with KEY=VALUE:\n",
            OmegaConf.to_yaml(config),
            *sweeps,
            "Also: -m (sweep), --cfg job, --info defaults-tree, -sc install=bash (tab completion), --hydra-help",
        ]
    )


def start_logging() -> None:
    """The same short log lines on the terminal as under Hydra, for scripts that run without it."""
    logging.config.dictConfig(OmegaConf.to_container(OmegaConf.load(CONF / "hydra/job_logging/short.yaml")))


def split_runs(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Separate ``run=FOLDER`` or ``run=[A,B]`` from the other overrides. Raises UserError when there is none."""
    runs = [argument.removeprefix("run=") for argument in arguments if argument.startswith("run=")]
    if len(runs) != 1:
        raise UserError("say which run to measure: evaluate.py run=FOLDER, or run=[FOLDER,FOLDER]")
    folders = [Path(folder.strip()) for folder in re.split(r",(?![^,/]*=)", runs[0].strip("[]")) if folder.strip()]
    if not folders:
        raise UserError(f"run={runs[0]}: names no run; evaluate.py run=FOLDER, or run=[FOLDER,FOLDER]")
    return folders, [argument for argument in arguments if not argument.startswith("run=")]


def guarded(work: Callable[[], Any]) -> Any:
    """Do `work`; a user's mistake becomes one message on stderr and exit code 1, Ctrl-C exit code 130."""
    try:
        return work()
    except (UserError, HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        print(f"Error: {explain(error)}", file=sys.stderr)
        sys.exit(1)
    except ValueError as error:  # Hydra's word for a group that is given null or a number
        said = (argument.partition("=") for argument in sys.argv[1:])
        groups = [(key_of(key), value) for key, _, value in said if (CONF / key_of(key)).is_dir()]
        wrong = [(key, value) for key, value in groups if not isinstance(yaml.safe_load(value), str)]
        if not wrong or "Config group override" not in str(error):
            raise
        (key, value), *_ = wrong
        options = sorted(path.stem for path in (CONF / key).glob("*.yaml"))
        instead = f"; use {key}=none" if value == "null" and "none" in options else ""
        print(f"Error: {key}={value}: there is none{instead}. Allowed: {', '.join(options)}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # `train.py --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        print(f"Error: {error.filename or 'writing'}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("Interrupted; the same command continues from the last finished epoch.", file=sys.stderr)
        sys.exit(130)


def explain(error: BaseException) -> str:
    """A mistake in one message; an unknown key or option gets the nearest valid one."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, name = str(error.missing_cfg_file).rsplit("/", 1)
        near = suggestion(name, error.options) or "."
        return f"{group}={name}: there is none{near} Allowed: {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        key, _, value = str(error.override).partition("=")
        what = str(error).splitlines()[0]
        unknown = what.startswith("LexerNoViableAltException")  # a character that Hydra's grammar has no place for
        special = unknown or "=" in value or ("no viable alternative" in what and value[:1] not in ("[", "{"))
        advice = ""
        if value and special:
            escaped = value.replace("'", "\\'")
            advice = f""". Quote such a value twice: "{key}='{escaped}'\""""
        return f"cannot read '{error.override}': {'special characters' if unknown else what}{advice}"
    if str(error).startswith("Error merging override") and error.__cause__:
        what = str(error).splitlines()[0].removeprefix("Error merging override ")
        return f"{what}: {str(error.__cause__).splitlines()[0]}"
    if found := re.match(r"Could not override '([\w/]+/\w+)'", str(error)):
        parent, name = found[1].rsplit("/", 1)
        owners = [p.stem for p in (CONF / parent).glob("*.yaml") if re.search(rf"^ +- {name}:", p.read_text(), re.M)]
        if owners:
            return f"{found[1]}: only with {parent}={' or '.join(owners)}, or an experiment that has it"
    if isinstance(error, InstantiationException):
        return told(error)
    cause = error
    while cause is not None:
        if isinstance(cause, UserError):  # also one raised by a resolver, which OmegaConf wraps
            break
        key = getattr(cause, "full_key", None)
        if key and "is not in struct" in str(cause):
            return f"unknown setting '{key}'{_nearest(key)}"
        if key and "pretrained.settings." in str(cause) and isinstance(cause, InterpolationResolutionError):
            needed = re.search(r"key '([\w.]+)' not found", str(cause))
            its = key.removeprefix("pretrained.settings.")
            what = f"takes {needed[1]} from it, and there is none" if needed else f"finds nothing for its {its}"
            return f"the earlier stage of this experiment does not fit: it {what}; pretrained=none leaves it out"
        if key and isinstance(cause, InterpolationKeyError):
            needed = str(cause).split("'")[1]
            return f"{key}: takes {needed}, which is not there; say {key}=..., or choose another {needed.split('.')[0]}"
        cause = cause.__cause__ or cause.__context__  # OmegaConf says what was behind it in the second only
    return str(cause or error).strip()


def _nearest(key: str) -> str:
    """What to say of an unknown setting: that a sweep for another experiment sets it, or the nearest there is."""
    if key == "sweep":  # which is null where none is named
        return ": only a sweep has it; name one, or add sweep=base"
    instead = f" (To add a setting that is not there, write +{key}=...)"
    groups = [o for o in sys.argv[1:] if "=" in o and "." not in o.split("=")[0] and "$" not in o]
    for overrides in (groups, []):
        try:
            known = flatten(plain(compose(overrides)))
        except Exception:
            continue
        if f"sweep.params.{key}" in known:
            sweep = next(o for o in overrides if o.startswith("sweep="))
            return f" ({sweep} sets it, which is made for another experiment)"
        keys = [k for k in known if k != key and (key.startswith("sweep.") or not k.startswith("sweep."))]
        keys += [path.relative_to(CONF).as_posix() for path in CONF.rglob("*") if path.is_dir()]
        last = key.rsplit(".", 1)[-1]
        alike = (f"; did you mean '{k}'?" for k in keys if k.rsplit(".", 1)[-1] == last)
        return (suggestion(key, keys) or next(alike, ".")) + instead
    return f".{instead}"
