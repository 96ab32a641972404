"""The summary of a sweep: tables, plots and a page, kept up to date while it runs and made anew at any time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType

from healing_mnist.checks import UserError, suggestion
from healing_mnist.sweeps import tables
from healing_mnist.sweeps.pool import Aside, Job, Pool, tail
from healing_mnist.sweeps.results import Results

log = logging.getLogger(__name__)


LOOK = 5.0  # seconds between two looks at what another launcher's jobs have left
FIRST = 60.0  # seconds until the plots are drawn for the first time


class Reporter:
    """Keeps the summary of a running sweep of `total` jobs up to date, and closes it.

    A context in which the sweep runs: where it is left by an exception, no drawing goes on.
    """

    def __init__(self, results: Results, pool: Pool, total: int):
        self.results, self.pool, self.total = results, pool, total
        # In a job's process: plots need libraries that this process never imports.
        self._draw = Job("summary", partial(draw, results.folder), results.folder / "summary.log")
        self._tables_due, self._plots_due, self._begun = 0.0, time.monotonic() + FIRST, 0.0
        self._drawing: Aside | None = None

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None and self._drawing:
            self._drawing.stop()
            self._draw.log.unlink(missing_ok=True)

    def update(self) -> None:
        """Write the tables again, and draw the plots, each seldom enough to take a twentieth of the time at most."""
        started = time.monotonic()
        if started >= self._tables_due:
            tables.write(self.results)
            self._tables_due = time.monotonic() + 20 * (time.monotonic() - started)
        if self._drawing and self._drawing.ended:
            self._drawn()
        if not self._drawing and started >= self._plots_due:
            self._drawing, self._begun = self.pool.plain().aside(self._draw), started

    @contextmanager
    def watching(self, names: Collection[str]) -> Iterator[None]:
        """Tell of jobs that end while another launcher runs them, which returns when all have, and keep the summary."""
        done, waiting = threading.Event(), list(names)

        def watch() -> None:
            last = False
            while not last:
                last = done.wait(LOOK)
                for name in [name for name in waiting if (self.results.folder / name / "metrics.json").exists()]:
                    waiting.remove(name)
                    if self.results.update(name).state != "failed":
                        log.info("finished, %d of %d: %s", self.results.done, self.total, name)
                    self.update()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _drawn(self) -> bool:
        """Wait for the drawing under way, and say whether it was made."""
        outcome, log_file = self._drawing.outcome(), self._draw.log
        self._drawing, self._plots_due = None, time.monotonic() + 20 * (time.monotonic() - self._begun)
        if outcome.status == "failed":
            log.warning("the plots failed: %s\n%s", outcome.message, tail(log_file) if log_file.exists() else "")
            return False
        log_file.unlink(missing_ok=True)
        return True

    def finish(self) -> None:
        """Write everything and show the table. Raises UserError when jobs failed."""
        results = self.results
        tables.write(results)
        if self._drawing:
            self._drawn()
        self._drawing = self.pool.plain().aside(self._draw)
        drawn = self._drawn()
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
