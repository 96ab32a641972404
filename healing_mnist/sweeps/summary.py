"""The summary of a sweep: tables after every job, plots and a page at the end or at any time."""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path

from healing_mnist.checks import UserError, suggestion
from healing_mnist.sweeps import tables
from healing_mnist.sweeps.pool import Job, Pool, tail
from healing_mnist.sweeps.results import Results

log = logging.getLogger(__name__)


class Reporter:
    """Keeps the tables of a running sweep up to date, and closes it."""

    def __init__(self, results: Results, pool: Pool):
        self.results, self.pool = results, pool
        self._next = 0.0

    def update(self) -> None:
        """Write the tables again, seldom enough that it never takes more than a twentieth of the time."""
        started = time.monotonic()
        if started >= self._next:
            tables.write(self.results)
            self._next = time.monotonic() + 20 * (time.monotonic() - started)

    def finish(self) -> None:
        """Write everything and show the table. Raises UserError when jobs failed."""
        results = self.results
        tables.write(results)
        # In a job's process: the plots need libraries that this process never imports.
        job = Job("summary", partial(draw, results.folder), results.folder / "summary.log")
        drawn = True
        for outcome in self.pool.plain().run([job]):
            if outcome.status == "failed":
                log.warning("the plots failed: %s\n%s", outcome.message, tail(job.log))
                drawn = False
            else:
                job.log.unlink()
        show(results)
        made = "tables, plots and page: %s" if drawn else "tables, without plots and page: %s"
        log.info(made, results.folder / ("index.html" if drawn else "table.md"))
        failed = [run for run in results.runs.values() if run.state in ("failed", "unfinished")]
        if failed:
            lines = [f"{len(failed)} of {len(results.runs)} jobs are not finished:"]
            lines += [f"  {run.name}: {run.message or 'not run'}" for run in failed[:20]]
            lines += [f"Their logs: {results.folder}/<job>/*.log. The same command runs them again."]
            raise UserError("\n".join(lines))


def show(results: Results) -> None:
    """Print the table, and say which of the columns it was asked for no run can fill."""
    names = results.metric_names()
    for asked in set(results.definition.metrics).difference(names) if names else ():
        log.warning("sweep.metrics: no finished run has %s%s", asked, suggestion(asked, names))
    print(tables.markdown(results), end="")


def draw(folder: Path) -> None:
    """Plots and page of the sweep in `folder`."""
    from healing_mnist.sweeps import page, plots

    results = Results.load(folder)
    page.write(results, plots.write(results))


def summarize(folder: Path) -> None:
    """Tables, plots and page of a sweep, running or finished. Raises UserError when `folder` holds none."""
    results = Results.load(folder)
    tables.write(results)
    draw(folder)
    show(results)
    log.info("tables, plots and page: %s", folder / "index.html")
