"""Runs that end before their time: killed, interrupted, moved, damaged, spoiled; and how they go on."""

import json
import os
import signal
import subprocess
import time

import pytest
import torch

from healing_mnist import evaluation, runs
from healing_mnist.build import load_task
from healing_mnist.callbacks.metrics_table import MetricsTable
from healing_mnist.checks import UserError
from healing_mnist.tasks.base import Task


def test_a_run_stopped_after_any_epoch_ends_as_if_never_stopped(train, fast, monkeypatch):
    """Dropout, shuffling, resampled rows and the schedule all have to go on where they were."""
    options = [*fast, "experiment=joint_healing", "trainer.max_epochs=4", "model.dropout=0.1", "data.resample=true"]
    undisturbed = train(*options)
    expected = (undisturbed.folder / "metrics.json").read_bytes()
    table = (undisturbed.folder / "metrics.csv").read_bytes()

    class Killed(BaseException):
        pass

    original = MetricsTable.on_train_epoch_start

    for stop in (1, 3):

        def die(self, trainer, module, stop=stop):
            if trainer.current_epoch == stop:
                raise Killed
            original(self, trainer, module)
            self._begun -= 1000  # as if the epoch before had taken so many seconds

        monkeypatch.setattr(MetricsTable, "on_train_epoch_start", die)
        with pytest.raises(Killed):
            train(*options, "fresh=true")
        assert not (undisturbed.folder / "metrics.json").exists()
        monkeypatch.setattr(MetricsTable, "on_train_epoch_start", original)
        resumed = train(*options)
        assert (resumed.folder / "metrics.json").read_bytes() == expected
        assert (resumed.folder / "metrics.csv").read_bytes() == table
        spent = json.loads((resumed.folder / "environment.json").read_text())["seconds"]
        assert 0 < spent - 1000 * stop < 1000, "the epochs before the stop count, too"


def test_a_plateau_is_remembered_by_a_run_that_was_stopped(train, fast, monkeypatch):
    options = ["experiment=autoencoder", "scheduler=plateau", "scheduler.mode=max", "scheduler.patience=1", *fast]
    options += ["trainer.max_epochs=6", "data.batch_size=32"]  # the wrong mode: the rate falls again and again
    expected = (train(*options).folder / "metrics.json").read_bytes()
    original = MetricsTable.on_train_epoch_start

    def die(self, trainer, module):
        original(self, trainer, module)
        if trainer.current_epoch == 3:
            raise RuntimeError("killed")

    monkeypatch.setattr(MetricsTable, "on_train_epoch_start", die)
    with pytest.raises(RuntimeError, match="killed"):
        train(*options, "fresh=true")
    monkeypatch.setattr(MetricsTable, "on_train_epoch_start", original)
    assert (train(*options).folder / "metrics.json").read_bytes() == expected


def test_every_epoch_leaves_a_checkpoint_to_continue_from(train, worst_chosen):
    place = train(*worst_chosen).folder / "checkpoints"
    epochs = {path.stem: torch.load(path)["epoch"] for path in place.iterdir()}
    assert epochs == {"best": 0, "last": 2}


def test_kill_9_and_the_same_command_again(train, fast, command, tmp_path):
    options = ["experiment=joint", *fast, "trainer.max_epochs=8"]
    expected = (train(*options).folder / "metrics.json").read_bytes()
    outputs = tmp_path / "killed"
    arguments = command("train.py", *options, f"output_dir={outputs}")
    process = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(outputs.rglob("last.ckpt")):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(outputs.rglob("metrics.json"))
    again = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert "continuing from" in again.stdout
    (metrics,) = outputs.rglob("metrics.json")
    assert metrics.read_bytes() == expected
    assert not list(outputs.rglob(".*.tmp"))


def test_a_damaged_checkpoint_is_named_and_left(tmp_path):
    path = tmp_path / "best.ckpt"
    path.write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"not a readable checkpoint .* left in place"):
        load_task(path)
    assert path.exists()


def test_a_damaged_or_missing_checkpoint_of_an_unfinished_run_is_named(train, worst_chosen):
    folder = train(*worst_chosen).folder
    (folder / "metrics.json").unlink()
    best = folder / "checkpoints/best.ckpt"
    kept = best.read_bytes()
    last = folder / "checkpoints/last.ckpt"
    for content, what in ((None, "there is no checkpoint"), (kept[:1000], "not a readable")):
        best.unlink() if content is None else best.write_bytes(content)
        with pytest.raises(UserError, match=rf"best\.ckpt: {what} .*To train the run anew delete .*last\.ckpt"):
            train(*worst_chosen)  # the last epoch must not pass for the best one
    best.write_bytes(kept)
    whole = last.read_bytes()
    torch.save({"a": 1}, last)
    for content in (whole[:1000], last.read_bytes()):
        last.write_bytes(content)
        with pytest.raises(UserError, match=r"last\.ckpt: not a readable checkpoint .*To train the run anew"):
            train(*worst_chosen)
    last.unlink()
    assert train(*worst_chosen).metrics  # from the start


def test_files_of_a_run_that_are_damaged_are_named(train, fast):
    options = ["experiment=autoencoder", "trainer.max_epochs=1", *fast]
    folder = train(*options).folder
    settings = (folder / "config.yaml").read_text()
    for text, what in (("", "it holds no settings"), ("a: [", "while parsing"), (None, "not there")):
        (folder / "config.yaml").write_text(text) if text is not None else (folder / "config.yaml").unlink()
        with pytest.raises(UserError, match=rf"config\.yaml: .*{what}"):
            evaluation.evaluate(folder)
    (folder / "config.yaml").write_text(settings)
    (folder / "overrides.yaml").unlink()
    with pytest.raises(UserError, match=r"overrides\.yaml: not there"):
        evaluation.evaluate(folder)
    (folder / "metrics.json").write_text('{"metrics"')
    for use in (lambda: evaluation.evaluate(folder), lambda: train(*options)):
        with pytest.raises(UserError, match=r"metrics\.json: damaged .*delete it"):
            use()


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(train, fast):
    with pytest.raises(UserError, match=r"train/loss is nan at step \d+ \(epoch \d+\)"):
        train("experiment=autoencoder", *fast, "optimizer=sgd", "optimizer.lr=1e30", "scheduler=none")


def test_a_moved_run_keeps_its_best_epoch(train, fast, tmp_path, monkeypatch):
    settings = ["experiment=autoencoder", *fast, "trainer.max_epochs=4", "callbacks.checkpoint.mode=max"]  # the worst
    whole = train(*settings, f"run_dir={tmp_path / 'whole'}")
    ended = runs.MetricsTable.on_train_epoch_end

    def stop(self, trainer, task):
        ended(self, trainer, task)
        if trainer.current_epoch == 3:
            raise RuntimeError("the machine is switched off")

    monkeypatch.setattr(runs.MetricsTable, "on_train_epoch_end", stop)
    with pytest.raises(RuntimeError, match="switched off"):
        train(*settings, f"run_dir={tmp_path / 'there'}")
    monkeypatch.undo()
    (tmp_path / "there").rename(tmp_path / "here")
    assert whole.best["epoch"] == 1
    assert train(*settings, f"run_dir={tmp_path / 'here'}").best == whole.best


def test_a_run_that_was_stopped_early_stays_so(train, fast, monkeypatch):
    stopping = ["experiment=autoencoder", *fast, "callbacks=early_stopping", "callbacks.early_stopping.patience=1"]
    stopping += ["trainer.max_epochs=9", "callbacks.early_stopping.min_delta=100"]
    first = train(*stopping)
    epochs = len((first.folder / "metrics.csv").read_text().splitlines()) - 1
    assert epochs == 2
    (first.folder / "metrics.json").unlink()  # killed in its test
    assert train(*stopping) == first
    assert len((first.folder / "metrics.csv").read_text().splitlines()) - 1 == epochs


def test_probes_are_fitted_on_the_same_rows_however_often_a_run_was_stopped(train, fast):
    options = ["experiment=autoencoder", "data.rotation_ratio=0.5", "data.resample=true", *fast]
    options += ["+analysis.probes._target_=healing_mnist.callbacks.probes.Probes"]
    first = train(*options)
    (first.folder / "metrics.json").unlink()  # killed in its test
    assert train(*options) == first
    assert any("probe" in name for name in first.metrics)


def test_ctrl_c_is_not_taken_for_an_exit(train, fast, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("healing_mnist.tasks.base.Task.training_step", interrupted)
    before = signal.getsignal(signal.SIGINT)  # which Lightning exchanges
    try:
        with pytest.raises(KeyboardInterrupt):
            train("experiment=autoencoder", *fast)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("where", ["training_step", "test_step"])
def test_sigterm_ends_a_run_with_a_code_of_its_own(where, train, fast, monkeypatch):
    step = getattr(Task, where)

    def terminated(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments, **options)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Task, where, terminated)
    with pytest.raises(SystemExit) as stop:
        train("experiment=autoencoder", *fast)
    assert stop.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.undo()
    assert train("experiment=autoencoder", *fast).metrics["test/mse"] > 0


def test_weights_that_the_last_steps_spoil_are_not_kept(train, fast, tmp_path):
    spoiled = ["experiment=autoencoder", *fast, "optimizer=sgd", "optimizer.lr=1e38", "scheduler=none", "seed=0"]
    one_step = ["trainer.limit_train_batches=1", "trainer.max_epochs=1"]
    with pytest.raises(UserError, match=r"val/loss is nan at step 1 \(epoch 1\)"):
        train(*spoiled, *one_step, f"run_dir={tmp_path / 'run'}")
    assert not list((tmp_path / "run").rglob("*.ckpt"))
