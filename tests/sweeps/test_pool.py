"""The process pool, with real processes and signals."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import combinations
from pathlib import Path

import jobs
import pytest

from healing_mnist.sweeps.pool import Job, Pool, tail
from healing_mnist.sweeps.slots import Slot

SLOTS = [Slot("0", (0,)), Slot("1", (0,))]


def run(tmp_path, calls, slots=SLOTS, **options):
    pool = Pool(slots, **options)
    return list(pool.run(Job(f"job {i}", call, tmp_path / f"{i}.log") for i, call in enumerate(calls)))


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def test_every_job_is_a_process_of_its_own_in_a_slot_of_its_own(tmp_path):
    found = [outcome.value for outcome in run(tmp_path, [partial(jobs.describe, i) for i in range(6)])]
    assert sorted(job["number"] for job in found) == list(range(6))
    assert len({job["pid"] for job in found} | {os.getpid()}) == 7
    used = [job["gpus"] for job in found]
    assert min(used.count("0"), used.count("1")) >= 2  # a slot that fell free takes the next job
    assert {job["threads"] for job in found} == {"1"}
    assert all(job["cores"] == [0] for job in found)
    for a, b in combinations(found, 2):
        overlap = min(a["span"][1], b["span"][1]) - max(a["span"][0], b["span"][0])
        assert a["gpus"] != b["gpus"] or overlap <= 0


def test_a_job_is_drawn_only_when_a_slot_is_free(tmp_path):
    drawn, ended = [], []

    def source():
        for i in range(5):
            drawn.append(len(ended))
            yield Job(str(i), partial(jobs.nothing, i), tmp_path / f"{i}.log")

    for outcome in Pool(SLOTS).run(source()):
        ended.append(outcome.job.name)
    assert len(ended) == 5
    assert all(before >= i - 1 for i, before in enumerate(drawn))


def test_output_goes_to_the_jobs_own_log(tmp_path, capfd):
    run(tmp_path, [partial(jobs.describe, 4)])
    assert (tmp_path / "0.log").read_text() == "to stdout 4\nto stderr 4\n"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", "ValueError: no luck today"),
        ("mistake", "model.size=-1: must be positive"),
        ("sys.exit", "exited with code 3"),
        ("os._exit", "exited with code 7"),
        ("kill", "killed by SIGKILL"),
    ],
)
def test_a_failing_job_is_told_and_the_others_go_on(tmp_path, how, message):
    outcomes = run(tmp_path, [partial(jobs.fail, kind) for kind in ("fine", how, "fine", "fine")])
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    assert [outcome.job.name for outcome in failed] == ["job 1"]
    assert failed[0].message.startswith(message)
    assert len(outcomes) == 4
    if how == "raise":
        assert "in fail" in tail(tmp_path / "1.log")


def test_a_job_that_takes_too_long_is_stopped(tmp_path):
    started = time.monotonic()
    outcomes = run(tmp_path, [partial(jobs.fail, "hang"), partial(jobs.fail, "fine")], timeout=1.5)
    assert {o.job.name: o.status for o in outcomes} == {"job 0": "failed", "job 1": "finished"}
    assert "longer than the 1.5 s" in outcomes[-1].message
    assert time.monotonic() - started < 10


def test_a_job_may_return_more_than_a_pipe_holds(tmp_path):
    outcomes = run(tmp_path, [partial(jobs.nothing, "x" * 1_000_000)] * 3, timeout=20)
    assert [len(outcome.value) for outcome in outcomes] == [1_000_000] * 3


def test_retries(tmp_path):
    outcomes = run(tmp_path, [partial(jobs.count, tmp_path / f"calls-{i}", i) for i in (1, 3, 4)], retries=2)
    found = {o.job.name: (o.status, o.attempts) for o in outcomes}
    assert found == {"job 0": ("finished", 1), "job 1": ("finished", 3), "job 2": ("failed", 3)}


def test_an_attempt_that_is_not_the_last_is_told(tmp_path):
    told = []
    pool = Pool(SLOTS[:1], retries=2)
    job = Job("job", partial(jobs.count, tmp_path / "calls", 3), tmp_path / "log")
    (outcome,) = pool.run([job], on_retry=told.append)
    assert outcome.status == "finished"
    assert [(o.attempts, o.message) for o in told] == [(1, "RuntimeError: call 1"), (2, "RuntimeError: call 2")]


def test_a_mistake_of_the_users_is_not_retried(tmp_path):
    (outcome,) = run(tmp_path, [partial(jobs.fail, "mistake")], retries=5)
    assert outcome.attempts == 1


def test_fail_fast_stops_the_others(tmp_path):
    started, note = time.monotonic(), tmp_path / "pids"
    failing = [partial(jobs.with_child, note), partial(jobs.fail_beside, note)]
    outcomes = run(tmp_path, [*failing, *[partial(jobs.fail, "fine")] * 5], fail_fast=True)
    assert [outcome.job.name for outcome in outcomes] == ["job 1"]
    assert time.monotonic() - started < 20
    pids = list(map(int, note.read_text().split()))
    assert wait_for(lambda: not any(map(alive, pids)))  # a killed process takes a moment to be gone


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_process_outlives_the_parent(tmp_path, number):
    command = [sys.executable, str(Path(__file__).with_name("parent.py")), str(tmp_path)]
    parent = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    notes = [tmp_path / f"pids-{i}" for i in range(2)]
    assert wait_for(lambda: all(note.exists() and len(note.read_text().split()) == 2 for note in notes))
    pids = [int(pid) for note in notes for pid in note.read_text().split()]
    assert all(map(alive, pids))
    parent.send_signal(number)
    parent.wait(20)
    assert wait_for(lambda: not any(map(alive, pids)))
    assert not (tmp_path / "pids-2").exists()


def test_a_killed_job_leaves_no_process_behind(tmp_path):
    note, pids = tmp_path / "pids", []
    outcomes = Pool(SLOTS[:1]).run([Job("job", partial(jobs.with_child, note), tmp_path / "log")], on_start=pids.append)

    def kill():
        wait_for(lambda: note.exists() and len(note.read_text().split()) == 2)
        os.kill(int(note.read_text().split()[0]), signal.SIGKILL)

    import threading

    threading.Thread(target=kill).start()
    (outcome,) = outcomes
    assert outcome.message.startswith("killed by SIGKILL")
    assert wait_for(lambda: not any(map(alive, map(int, note.read_text().split()))))
