"""One live display for a whole sweep; where nobody watches, failures and the end only."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from healing_mnist.sweeps.pool import Job, Outcome, tail
from healing_mnist.sweeps.results import Results
from healing_mnist.sweeps.tables import shown


class Display:
    """Done, running, failed, time left, best so far.

    Args:
        results: what is finished already, kept up to date by the sweeper.
        total: jobs of the whole sweep.
        slots: jobs that run at once.
    """

    def __init__(self, results: Results, total: int, slots: int, console: Console | None = None):
        self.results, self.total, self.slots = results, total, slots
        self.console = console or Console(stderr=True)
        self.running: dict[str, float] = {}
        self.done = results.done
        self.failed, self._ended, self._seconds, self._best = 0, 0, 0.0, None
        self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def started(self, job: Job) -> None:
        self.running[job.name] = time.monotonic()

    def ended(self, outcome: Outcome) -> None:
        """Count a job; one that failed is told at once, with its last lines."""
        self.running.pop(outcome.job.name, None)
        self._ended, self._seconds = self._ended + 1, self._seconds + outcome.seconds
        if outcome.status == "finished":
            self.done += 1
            self._best = None
            return
        self.failed += 1
        self._tell(outcome, f"failed{f' {outcome.attempts} times' * (outcome.attempts > 1)}: {outcome.message}")

    def again(self, outcome: Outcome) -> None:
        """Tell of an attempt that failed, after which the job runs again."""
        self.running.pop(outcome.job.name, None)
        self._tell(outcome, f"failed, and runs again: {outcome.message}")

    def _tell(self, outcome: Outcome, what: str) -> None:
        lines = [f"job {outcome.job.name} {what}"]
        if outcome.job.log.exists():
            last = tail(outcome.job.log).splitlines()
            told = bool(last) and last[-1] == f"Error: {outcome.message}"
            lines += [f"    {line}" for line in last if not told] + [f"    all of it: {outcome.job.log}"]
        self.console.print(Text("\n".join(lines)), soft_wrap=True)

    def left(self) -> float | None:
        """Seconds the rest will take, going by the jobs so far."""
        if not self._ended:
            return None
        waiting = self.total - self.done - self.failed - len(self.running)
        typical, now = self._seconds / self._ended, time.monotonic()
        rest = sum(max(0.0, typical - (now - begun)) for begun in list(self.running.values()))
        return (waiting * typical + rest) / self.slots

    def _render(self) -> Group:
        line = Table.grid(padding=(0, 2))
        parts = [f"{self.done} of {self.total} done", f"{len(self.running)} running", f"{self.failed} failed"]
        left = self.left()
        parts.append(f"{_clock(left)} left" if left is not None else "")
        line.add_row(ProgressBar(self.total, self.done + self.failed, width=30), *parts)
        rows = [line, *(Text(f"  {name}  {_clock(time.monotonic() - begun)}", style="dim", no_wrap=True)
                        for name, begun in list(self.running.items())[:8])]  # fmt: skip
        if best := self._best_so_far():
            rows.append(Text(f"  best so far: {best}", no_wrap=True))
        return Group(*rows)

    def _best_so_far(self) -> str:
        if self._best is None:
            best, metric = self.results.best(), self.results.definition.objective
            point = ", ".join(f"{key}={shown(value)}" for key, value in best.point.items()) if best else ""
            self._best = f"{metric} {shown(best.mean(metric))} with {point}" if best else ""
        return self._best


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
