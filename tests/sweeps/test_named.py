"""Every sweep in conf/sweep: its jobs can run, and its report speaks of points and metrics that exist."""

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.types import RunMode
from omegaconf import OmegaConf

from healing_mnist import build
from healing_mnist.config import CONF, register_resolvers
from healing_mnist.sweeps.composing import Composer
from healing_mnist.sweeps.definition import sweep_settings
from healing_mnist.sweeps.points import sample
from healing_mnist.sweeps.results import Run, Setting
from healing_mnist.sweeps.sweeper import PointSweeper
from healing_mnist.sweeps.tables import report_of

NAMES = sorted(path.stem for path in (CONF / "sweep").glob("*.yaml") if path.stem != "base")


@pytest.mark.parametrize("name", NAMES)
def test_its_jobs_can_run(name, tmp_path):
    register_resolvers()
    sweeper = PointSweeper()
    sweeper.loader = ConfigLoaderImpl(create_config_search_path(str(CONF)))
    sweeper.config = sweeper.loader.load_configuration("train", [f"sweep={name}"], RunMode.MULTIRUN)
    settings = sweep_settings(sweeper.config.sweep)
    sweeper.fixed, dimensions, together = sweeper._split(settings, [f"sweep={name}"])
    definition = sweeper._define(settings, dimensions, together)
    assert definition.name == name
    points = list(definition.points.values()) or sample(dimensions, together, 2)
    composer = Composer(sweeper.loader, sweeper.config)
    judged_by = f"objective={definition.objective}", f"direction={definition.direction}"
    unfilled = set(definition.metrics)
    for point in [points[0], points[-1]]:
        config = composer([*sweeper._overrides(point), f"run_dir={tmp_path}", *judged_by])
        config = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
        build.check(config)
        logged = build.build_task(config).validation_metrics()
        reported = {key for row in definition.report for key in row} - set(definition.varied)
        known = {f"val/{metric.split('/')[-1]}" for metric in reported}
        assert known <= set(logged), f"the report speaks of {known - set(logged)}"
        unfilled -= set(build.metrics_of(config))
    assert not unfilled
    if definition.points:
        settings_run = [Setting(definition.values(job), [Run(job, {})]) for job in definition.points]
        matched = [row for setting in settings_run if (row := report_of(setting, definition.report))]
        assert len(matched) == len(definition.report) or definition.method == "random"
