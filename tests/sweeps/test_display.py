"""What a person sees of a running sweep."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from healing_mnist.sweeps import display as module
from healing_mnist.sweeps.display import Display
from healing_mnist.sweeps.pool import Job, Outcome


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: now.seconds)
    return now


def made(results, terminal=True):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
    return Display(results, total=10, slots=2, console=console)


def job(name, log=Path("none")):
    return Job(name, lambda: None, log)


def seen(display):
    """The lines of one look."""
    with display.console.capture() as capture:
        display.console.print(display._render())
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_display_counts_jobs_and_the_time_that_is_left(clock):
    best = SimpleNamespace(point={"model.latent_dim": 5}, mean=lambda metric: 0.025)
    objective = SimpleNamespace(objective="val/mse")
    results = SimpleNamespace(done=3, best=lambda: best, definition=objective)
    display = made(results)
    for name in ("a", "b", "c"):
        display.started(job(name))
    assert "3 of 10 done  3 running  0 failed" in seen(display)[0]
    assert "left" not in seen(display)[0]  # nothing has ended yet
    clock.seconds += 60
    display.ended(Outcome(job("a"), "finished", 60.0))
    display.ended(Outcome(job("b"), "failed", 40.0, message="no luck"))
    clock.seconds += 10
    first, running, so_far = seen(display)
    assert "4 of 10 done  1 running  1 failed" in first
    # 4 wait for 50 s each, c has run 70 s and may end at any time: 200 s on two slots
    assert first.endswith("1:40 left")
    assert running == "  c  1:10"
    assert so_far == "  best so far: val/mse 0.025 with model.latent_dim=5"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_failure_is_told_with_its_last_lines_and_where_the_rest_is(tmp_path, terminal):
    log = tmp_path / "job.log"
    log.write_text("".join(f"line {i}\n" for i in range(40)))
    display = made(
        SimpleNamespace(done=0, best=lambda: None, definition=SimpleNamespace(objective="val/mse")), terminal
    )
    with display:
        display.again(Outcome(job("x", log), "failed", 1.0, message="no luck", attempts=1))
        display.ended(Outcome(job("x", log), "failed", 1.0, message="no luck", attempts=2))
    text = display.console.file.getvalue()
    assert "job x failed, and runs again: no luck" in text
    assert "job x failed 2 times: no luck" in text
    assert "line 39" in text
    assert "line 27" not in text
    assert f"all of it: {log}" in text.replace("\n", "")
    assert ("0 of 10 done" in text) == terminal


def test_long_times_are_told_in_hours():
    assert [module._clock(seconds) for seconds in (0, 59.6, 61, 3599.4, 36000)] == [
        "0:00",
        "1:00",
        "1:01",
        "59:59",
        "10:00:00",
    ]
