"""Finished runs measured again, on other data or by other analyses, and drawn beside each other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from healing_mnist.build import build_data, check_groups, load_task
from healing_mnist.checks import UserError
from healing_mnist.config import (
    CONF,
    compose,
    difference,
    dotted,
    evaluation_name,
    flatten,
    folder_name,
    incidental,
    key_of,
    plain,
    saved_overrides,
    saved_settings,
    settings_of,
    there_and_now,
)
from healing_mnist.runs import Result, finished, hush, interruptible, logging_to, measured, single_trainer, summary_of
from healing_mnist.tryout import check_limits, try_out

BATCHING = "batch_size", "eval_batch_size", "resample"  # of a data set; no row of a test depends on it
# Of a data set: where images come from, how they are dealt and batched, which stays as it was on other data.
DEALING = {"source", "root", "cache", "limit", "val_fraction", "test_fraction", "fold", "folds", "seed", *BATCHING}
CHANGEABLE = "data", "analysis", "callbacks", "logger", "trainer", "seed"  # for an evaluation
log = logging.getLogger(__name__)


def evaluate(run: Path, overrides: Sequence[str] = ()) -> Result:
    """Test a finished run again, with other data or analyses if `overrides` say so, into ``<run>/evaluations/``.

    Raises:
        UserError: `run` is no finished run; an override changes what was trained.
    """
    return _measure(run, _checked(run, overrides))


def _measure(run: Path, cfg: DictConfig) -> Result:
    place, data = Path(cfg.run_dir), build_data(cfg)
    _check_dealing(run, data.dealt_by, plain(cfg.data))
    task = load_task(run / "checkpoints" / "best.ckpt")
    for key, shape in flatten(task.config["model"]).items():
        if key.endswith("image_shape") and list(shape) != list(data.image_shape):
            given, trained = ("x".join(map(str, sizes)) for sizes in (data.image_shape, shape))
            raise UserError(f"run={run}: was trained on images of {trained} (channels x height x width), not {given}")
    hush()
    L.seed_everything(cfg.seed, verbose=False)
    trainer = single_trainer(cfg, place)
    check_limits(trainer, data, "test")
    try_out(task, data, trainer.callbacks)
    place.mkdir(parents=True, exist_ok=True)
    with logging_to(place / "run.log"):
        with interruptible(trainer):
            trainer.test(task, data, verbose=False)
        result = measured(trainer, place, {}, cfg.objective)
    result.save()
    return result


def _checked(run: Path, overrides: Sequence[str]) -> DictConfig:
    """The settings of an evaluation, with its folder as `run_dir`; raises what is wrong with them."""
    if finished(run) is None:
        sweep = "; it is a sweep, whose runs lie in it" if (run / "sweep.yaml").exists() else ""
        raise UserError(f"run={run}: not a finished run (it has no metrics.json){sweep}")
    for override in overrides:
        if dotted(override).split(".")[0] not in CHANGEABLE:
            raise UserError(f"{override}: an evaluation cannot change this; allowed: {', '.join(CHANGEABLE)}")
    cfg = _composed_again(run, overrides)
    OmegaConf.update(cfg, "run_dir", str(run / evaluation_name(overrides)))
    check_groups(cfg, "data", "callbacks", "analysis", "logger", "trainer")
    return cfg


def _check_dealing(run: Path, dealt_by: Sequence[str], data: dict[str, Any]) -> None:
    """Raise UserError for data of the run's own kind dealt otherwise: it would be tested on what it was trained on.

    Of another kind that deals out the same source's images in a way of its own, where it may be, there is a warning.
    """
    trained = saved_settings(run / "config.yaml")["data"]
    if trained.get("source") != data.get("source"):
        return
    if trained["_target_"] != data["_target_"]:
        if "source" in data and (dealt_by or getattr(get_object(trained["_target_"]), "dealt_by", ())):
            log.warning(
                "run=%s: may be tested on images of data.source=%s that it was trained on, as these data deal them in "
                "another way; none are in data of the kind it was trained on, or of another data.source",
                run,
                data["source"],
            )
        return
    for key in dealt_by:
        if trained[key] != data[key]:
            raise UserError(
                f"data.{key}={data[key]}: run={run} was trained with {trained[key]}, and would be tested on sequences "
                "that it was trained on; leave it as it is"
            )


def _composed_again(run: Path, overrides: Sequence[str]) -> DictConfig:
    """The settings of a run with other words said last."""
    saved = saved_overrides(run / "overrides.yaml")
    trained, now = flatten(saved_settings(run / "config.yaml")), flatten(plain(compose(saved)))
    kept = {key for key in trained.keys() & now.keys() if key.split(".")[0] not in ("trainer", "callbacks")}
    changed = {key: both for key, both in difference(trained, now).items() if key in kept}
    if changed:
        raise UserError("\n  ".join([f"run={run}: conf has changed since it was trained:", *there_and_now(changed)]))
    kept = [word for word in saved if not any(_outdated(key_of(word), override) for override in overrides)]
    cfg = compose([*kept, *overrides])
    if cfg.data._target_ != trained["data._target_"]:  # nor does what the experiment said of its own data hold
        said = [override for override in overrides if override.lstrip("+~").startswith(("data=", "data/", "data."))]
        other = OmegaConf.to_container(compose(["~experiment", *said]).data, resolve=False)
        named = {key_of(override).split(".")[1] for override in said if key_of(override).startswith("data.")}
        cfg.data = other | {key: cfg.data[key] for key in DEALING & other.keys() & cfg.data.keys() - named}
    return cfg


def _outdated(key: str, override: str) -> bool:
    """Whether what was said of a setting holds no longer, because `override` names another option of its group."""
    group, _, option = override.partition("=")
    if group == "data" and key.startswith("data/"):
        return True
    if group.split("/")[0] == "data" and key.startswith("data.") and (CONF / group / f"{option}.yaml").exists():
        name, known = key.split(".")[1], compose([], f"{group}/{option}").data
        return name in known if "/" in group else name not in DEALING or name not in known
    return incidental(key) and key.startswith(f"{key_of(override)}.")


def evaluate_all(runs: Sequence[Path], overrides: Sequence[str] = ()) -> list[Result]:
    """`evaluate` each run and print its metrics; several are also drawn side by side."""
    settings = [_checked(run, overrides) for run in runs]  # of all, before the first is measured
    results = [_measure(run, cfg) for run, cfg in zip(runs, settings, strict=True)]
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
    datas = [{"data": {k: v for k, v in plain(cfg.data).items() if k not in BATCHING}} for cfg in (first, *others)]
    changed = {key for data in datas[1:] for key in difference(datas[0], data)}
    if changed:
        log.info("not drawn side by side, the runs differ in %s", ", ".join(sorted(changed)))
        return None
    names = _short_names([run.resolve() for run in runs])
    every = "+".join(f"{run.resolve().parent.name}-{run.resolve().name}" for run in runs)
    data = build_data(first)
    data.setup()
    tasks = {name: load_task(run / "checkpoints" / "best.ckpt") for name, run in zip(names, runs, strict=True)}
    place = Path(first.output_dir) / "comparisons" / folder_name({"runs": every, **settings_of(overrides)})
    save(place, "side_by_side", *side_by_side(tasks, data))
    return place


def _short_names(runs: Sequence[Path]) -> list[str]:
    """The shortest part of the paths that tells the runs apart: experiment, folder, both, or all of it."""
    ways = (lambda run: run.parent.name, lambda run: run.name, lambda run: f"{run.parent.name} {run.name}", str)
    every = [[way(run) for run in runs] for way in ways]
    return next(names for names in every if len(set(names)) == len(set(runs)))
