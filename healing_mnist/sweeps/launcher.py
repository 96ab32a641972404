"""Hydra's launcher for one machine: jobs in fresh processes on device slots."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from healing_mnist.checks import NonNegative, Positive, PositiveFloat
from healing_mnist.sweeps.composing import Composer, filled
from healing_mnist.sweeps.pool import DRAWING, PRELOAD, Job, Outcome, Pool
from healing_mnist.sweeps.slots import describe, make_slots

log = logging.getLogger(__name__)


class SlotLauncher(Launcher):
    """Run every job of a multirun in a process of its own, as many at once as there are slots.

    The arguments are described in conf/hydra/launcher/slots.yaml.
    """

    def __init__(
        self,
        devices: str | int | Sequence[int | str] = "auto",
        slots_per_device: Positive | None = None,
        retries: NonNegative = 0,
        timeout: PositiveFloat | None = None,
        fail_fast: bool = False,
    ):
        self.devices = devices if isinstance(devices, (str, int)) else list(devices)
        self.slots_per_device = slots_per_device
        self.options = {"retries": retries, "timeout": timeout, "fail_fast": fail_fast}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        # Bare, as its module knows it: a wrapper could not be sent to another process.
        self.task = inspect.unwrap(task_function)
        self.context, self.config = hydra_context, config

    def pool(self, jobs: int | None = None) -> Pool:
        """Slots for so many jobs; the first call starts the imports that all jobs share."""
        accelerator = OmegaConf.select(self.config, "trainer.accelerator", default="auto")
        slots = make_slots(self.devices, self.slots_per_device, accelerator, jobs)
        source, *draws = (OmegaConf.select(self.config, key) for key in ("data.source", "analysis", "logger"))
        late = DRAWING if source == "digits" or any(draws) else ()  # a job whose settings differ imports them itself
        return Pool(slots, **self.options, preload=(*PRELOAD, *late))

    def stream(
        self,
        jobs: Iterable[tuple[str, Sequence[str], Path]],
        pool: Pool,
        composer: Composer,
        **tell: Callable,
    ) -> Iterator[Outcome]:
        """Yield outcomes as jobs end; `jobs` are (name, overrides, folder), drawn one by one as slots fall free.

        `tell` are the callbacks of `Pool.run`.
        """
        call = partial(run_one, self.context, self.task)
        made = (
            Job(name, partial(call, i, *composer.split(overrides), overrides), at / "job.log")
            for i, (name, overrides, at) in enumerate(jobs)
        )
        return pool.run(made, **tell)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Hydra's own interface, for other sweepers than the project's."""
        pool, base = self.pool(len(job_overrides)), Path(self.config.hydra.sweep.dir)
        log.info("%d jobs in %s", len(job_overrides), describe(pool.slots))
        jobs = [
            (str(initial_job_idx + i), list(o), base / str(initial_job_idx + i)) for i, o in enumerate(job_overrides)
        ]
        returns = {name: JobReturn(overrides=overrides, status=JobStatus.UNKNOWN) for name, overrides, _ in jobs}
        for outcome in self.stream(jobs, pool, Composer(self.context.config_loader, self.config)):
            done = returns[outcome.job.name]
            done.status = JobStatus.COMPLETED if outcome.status == "finished" else JobStatus.FAILED
            done.return_value = outcome.value if outcome.status == "finished" else RuntimeError(outcome.message)
        return list(returns.values())


def run_one(
    context: HydraContext, task: TaskFunction, number: int, shared: DictConfig, values: list, overrides: Sequence[str]
) -> Any:
    """Run one job of a multirun, the body of its process: `values` are put into a configuration that jobs share."""
    prepare_process()
    setup_globals()
    config = filled(shared, values, overrides)
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    done = run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", context)
    return done.return_value  # raises what the task raised


def prepare_process() -> None:
    """What a process needs before it composes a configuration."""
    from hydra import version

    from healing_mnist import sweeps
    from healing_mnist.config import register_resolvers

    version.setbase("1.3")

    sweeps.register()
    register_resolvers()
