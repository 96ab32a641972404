"""Run many jobs on a few slots, each job in a fresh process.

A fork server imports the heavy libraries once; a job is a fork of it, so it starts in about 0.1 s with nothing left
over from the job before. No job outlives this process, however this process ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any, Literal

from healing_mnist.checks import UserError
from healing_mnist.sweeps.slots import Slot

PRELOAD = ("healing_mnist.sweeps.preload",)  # for jobs that train
DRAWING = ("healing_mnist.sweeps.preload_drawing",)  # besides, for those that draw, log or load digits
NOTHING = False, "", False  # of a job that says nothing before it ends
GRACE = 5.0  # seconds between asking a job to end and killing it


@dataclass(frozen=True)
class Job:
    """What to run: a picklable call without arguments, its name, and the file that takes all its output."""

    name: str
    call: Callable[[], Any]
    log: Path


@dataclass(frozen=True)
class Outcome:
    """How a job ended. `value` is what the call returned; `message` says what went wrong, empty if nothing did."""

    job: Job
    status: Literal["finished", "failed"]
    seconds: float
    value: Any = None
    message: str = ""
    attempts: int = 1


@dataclass
class _Running:
    job: Job
    slot: Slot
    attempt: int
    process: Any
    result: connection.Connection
    started: float
    deadline: float
    sent: tuple[bool, Any, bool] | None = None  # whether the call returned, what, and whether trying again is pointless


class Pool:
    """Slots with jobs running in them.

    Args:
        slots: where jobs may run.
        retries: how often a job that failed is started again; a mistake in its configuration is not retried.
        timeout: seconds a job may take; None for no limit.
        fail_fast: stop everything at the first failure.
        preload: modules the fork server imports before the first job.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        retries: int = 0,
        timeout: float | None = None,
        fail_fast: bool = False,
        preload: Sequence[str] = (),
    ):
        self.slots, self.retries, self.timeout, self.fail_fast = slots, retries, timeout, fail_fast
        self.preload = preload
        self._context = warm_up(preload)

    def plain(self) -> Pool:
        """The same slots, for work around the jobs: without their retries and their time limit."""
        return Pool(self.slots, preload=self.preload)

    def run(
        self,
        jobs: Iterable[Job],
        on_start: Callable[[Job], None] = lambda job: None,
        on_retry: Callable[[Outcome], None] = lambda outcome: None,
    ) -> Iterator[Outcome]:
        """Yield each job's outcome as it ends. A job is drawn from `jobs` only when a slot is free to run it.

        `on_retry` is told of an attempt that failed and after which the job runs again.
        """
        waiting, again = iter(jobs), deque()
        free, running = list(reversed(self.slots)), []
        try:
            while True:
                while free and (item := again.popleft() if again else _next(waiting)) is not None:
                    on_start(item[0])
                    running.append(self._start(*item, free.pop()))
                if not running:
                    return
                for task in self._ended(running):
                    running.remove(task)
                    free.append(task.slot)
                    outcome, final = self._collect(task)
                    if not final and task.attempt <= self.retries:
                        on_retry(outcome)
                        again.append((task.job, task.attempt + 1))
                        continue
                    yield outcome
                    if self.fail_fast and outcome.status == "failed":
                        return
        finally:
            _stop(running)

    def aside(self, job: Job) -> Aside:
        """Start a job beside those that `run` runs, in the place of the first slot; it is for the caller to end it."""
        return Aside(self, self._start(job, 1, self.slots[0]))

    def _start(self, job: Job, attempt: int, slot: Slot) -> _Running:
        receive, send = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(job, slot, send), name=job.name)
        process.start()
        send.close()  # the job holds the only writing end
        now = time.monotonic()
        return _Running(job, slot, attempt, process, receive, now, now + (self.timeout or float("inf")))

    def _ended(self, running: list[_Running]) -> list[_Running]:
        """Wait until at least one job has ended or has used up its time."""
        while True:
            left = min(task.deadline for task in running) - time.monotonic()
            # A job cannot end before what it returns is received, if that is more than a pipe holds.
            waited = [task.process.sentinel for task in running] + [task.result for task in running if not task.sent]
            ready = connection.wait(waited, None if left > 1e6 else max(left, 0))
            for task in running:
                if task.result in ready:
                    task.sent = _receive(task.result)
            now = time.monotonic()
            if ended := [task for task in running if task.process.sentinel in ready or now >= task.deadline]:
                return ended

    def _collect(self, task: _Running) -> tuple[Outcome, bool]:
        """The outcome of a job that ended or must end, and whether trying again is pointless."""
        timed_out = task.process.is_alive()
        _stop([task], grace=GRACE if timed_out else 0)
        seconds = time.monotonic() - task.started
        ok, value, final = task.sent or (_receive(task.result) if task.result.poll() else NOTHING)
        task.result.close()
        code = task.process.exitcode
        task.process.close()
        if ok:
            return Outcome(task.job, "finished", seconds, value=value, attempts=task.attempt), True
        if timed_out:
            value = f"stopped: it took longer than the {self.timeout:g} s it was given (timeout)"
        message = value or _explain(code)
        return Outcome(task.job, "failed", seconds, message=message, attempts=task.attempt), final


class Aside:
    """A job that runs beside others."""

    def __init__(self, pool: Pool, task: _Running):
        self._pool, self._task = pool, task

    @property
    def ended(self) -> bool:
        return not self._task.process.is_alive()

    def outcome(self) -> Outcome:
        """Wait for its end."""
        self._task.process.join()
        return self._pool._collect(self._task)[0]

    def stop(self) -> None:
        _stop([self._task], grace=0)


def warm_up(preload: Sequence[str]) -> Any:
    """Start the fork server, which imports `preload` while this process goes on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    forkserver.ensure_running()
    return context


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log."""
    with open(log, "rb") as file:
        file.seek(max(0, os.path.getsize(log) - 4096))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def _receive(result: connection.Connection) -> tuple[bool, Any, bool]:
    try:
        return result.recv()
    except (EOFError, OSError):  # it died before it had said anything, or all of it
        return NOTHING


def _next(waiting: Iterator[Job]) -> tuple[Job, int] | None:
    job = next(waiting, None)
    return None if job is None else (job, 1)


def _explain(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "killed by SIGKILL, which is also what the system does when memory runs out"
    return f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"exited with code {code}"


def _stop(running: Sequence[_Running], grace: float = GRACE) -> None:
    """Ask the jobs to end, kill the ones that do not, and whatever processes they started."""
    alive = [task for task in running if grace and task.process.is_alive()]
    for task in alive:
        _signal(task, signal.SIGTERM)
    until = time.monotonic() + grace
    for task in alive:
        task.process.join(max(0.0, until - time.monotonic()))
    for task in running:
        _signal(task, signal.SIGKILL)
        task.process.join(1 + GRACE)


def _signal(task: _Running, number: int) -> None:
    try:
        os.killpg(task.process.pid, number)  # each job leads a process group of its own
    except (ProcessLookupError, PermissionError):
        if task.process.is_alive():  # not yet the leader of its group
            task.process.kill() if number == signal.SIGKILL else task.process.terminate()


def _work(job: Job, slot: Slot, send: connection.Connection) -> None:
    """Body of a job's process."""
    os.setpgid(0, 0)  # Ctrl-C reaches the parent only, which then ends its jobs; a kill reaches all of a job
    threading.Thread(target=_die_with_parent, daemon=True).start()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with open(job.log, "ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    slot.enter()
    try:
        send.send((True, job.call(), True))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        send.send((False, str(error), True))
        sys.exit(1)
    except SystemExit as error:
        if error.code:
            send.send((False, f"exited with code {error.code}", False))
        raise
    except BaseException as error:
        traceback.print_exc()
        send.send((False, f"{type(error).__name__}: {error}", False))
        sys.exit(1)


def _die_with_parent() -> None:
    connection.wait([multiprocessing.parent_process().sentinel])
    os.killpg(0, signal.SIGKILL)
