"""What a run measures: losses of epochs, the epoch chosen and tested, baselines, several processes."""

import csv
import json
import subprocess

import pytest
import torch

from healing_mnist import runs
from healing_mnist.build import build_data, build_task, load_task
from healing_mnist.checks import UserError
from healing_mnist.config import compose

STOPPING = ["callbacks=early_stopping", *(f"callbacks.early_stopping.{key}" for key in ("patience=1", "min_delta=9"))]
FEW_SEQUENCES = ["data.num_sequences=64", "data.num_eval_sequences=64"]


def test_a_plateau_is_judged_where_validation_was(train, fast):
    options = ["experiment=autoencoder", "scheduler=plateau", "scheduler.patience=1", *fast, "trainer.max_epochs=8"]
    result = train(*options, "trainer.check_val_every_n_epoch=4")
    state = torch.load(result.folder / "checkpoints" / "last.ckpt")["lr_schedulers"][0]
    assert (state["last_epoch"], state["num_bad_epochs"]) == (2, 0)


def test_test_metrics_are_those_of_the_best_epoch_not_the_last(train, worst_chosen):
    result = train(*worst_chosen)
    best, last = (result.folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    assert torch.load(best)["epoch"] + 1 == result.best["epoch"] < torch.load(last)["epoch"] + 1 == 3
    data = build_data(compose(worst_chosen))
    data.setup()
    batch = data.batch("test", torch.arange(len(data.tables["test"]["index"])))
    for path, same in ((best, True), (last, False)):
        with torch.no_grad():
            error = float((load_task(path).network(batch.input).image - batch.input).square().mean())
        assert (result.metrics["test/mse"] == pytest.approx(error, rel=1e-4)) is same


def test_the_epoch_reported_is_the_one_tested_however_it_was_chosen(train, worst_chosen):
    assert train(*worst_chosen, "callbacks.checkpoint=null").best["epoch"] == 3
    by_training = train(*worst_chosen, "callbacks.checkpoint.monitor=train/loss", "callbacks.checkpoint.mode=min")
    rows = list(csv.DictReader((by_training.folder / "metrics.csv").open()))
    lowest = min(rows, key=lambda row: float(row["train/loss"]))
    assert by_training.best["epoch"] == float(lowest["epoch"])
    assert by_training.objective == pytest.approx(float(lowest["val/loss"]))


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        (["experiment=autoencoder", "model.batch_norm=none"], (228, 230)),  # the last batch is small
        (["experiment=cnn_lstm_reconstruction", "data/sequences=var_grow", "pretrained=none", *FEW_SEQUENCES], (7, 40)),
    ],
)
def test_the_training_loss_of_an_epoch_is_that_of_its_rows_or_frames(train, fast, settings, sizes):
    """With a learning rate of nothing it is the same for any batch size."""
    options = [*settings, *fast, "trainer.max_epochs=1", "optimizer=sgd", "optimizer.lr=1e-30", "scheduler=none"]
    losses = [train(*options, f"data.batch_size={size}").best["train/loss"] for size in sizes]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_an_epoch_that_ends_in_its_middle_has_a_loss_of_its_own(train, fast):
    still = ["optimizer=sgd", "optimizer.lr=1e-30", "scheduler=none", "model.batch_norm=none"]
    result = train("experiment=autoencoder", *fast, *still, "data.batch_size=200", "+trainer.max_steps=3")
    first, second = [float(row["train/loss"]) for row in csv.DictReader((result.folder / "metrics.csv").open())]
    assert first != second
    assert first == pytest.approx(second, rel=0.05)


def test_an_epoch_that_a_validation_ends_has_no_mean_loss(train, fast):
    early = [
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=1",
        "callbacks.early_stopping.min_delta=100",
    ]
    early += ["+callbacks.early_stopping.check_on_train_epoch_end=false", "+trainer.val_check_interval=2"]
    options = [*early, "data.batch_size=40", "trainer.max_epochs=9"]
    rows = list(csv.DictReader((train("experiment=autoencoder", *fast, *options).folder / "metrics.csv").open()))
    assert not rows[-1].get("train/loss")


def test_means_are_logged_once_an_epoch_where_more_epochs_are_asked_for(train, fast):
    options = ["experiment=autoencoder", *fast, "data.batch_size=40", "trainer.max_epochs=3"]
    early = [
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=1",
        "callbacks.early_stopping.min_delta=100",
    ]
    whole = train(*options)
    asked = train(*options, *early, "+trainer.min_epochs=3")
    tables = [list(csv.DictReader((result.folder / "metrics.csv").open())) for result in (whole, asked)]
    assert [row["train/loss"] for row in tables[0]] == [row["train/loss"] for row in tables[1]]


def test_the_time_of_an_earlier_stage_is_not_counted_twice(train, fast, monkeypatch):
    passed = [0.0]
    clock = runs.time.perf_counter
    monkeypatch.setattr(runs.time, "perf_counter", lambda: clock() + passed[0])
    monkeypatch.setattr(runs, "load_earlier_stage", lambda *_: passed.__setitem__(0, 10_000))
    result = train("experiment=autoencoder", *fast)
    assert json.loads((result.folder / "environment.json").read_text())["seconds"] < 1000


def test_ddp_on_two_processes_is_as_one(fast, command, tmp_path):
    """A step on the same rows, then 25 that validate; without batch norm, whose statistics are per process."""
    options = [
        "experiment=autoencoder",
        *fast,
        "model.batch_norm=none",
        "optimizer=sgd",
        "optimizer.momentum=0",
        "optimizer.nesterov=false",
        "scheduler=none",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=1",
        "data.limit=250",
    ]
    weights, found = [], []
    for extra in (
        ["data.batch_size=64"],
        ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=32"],
    ):
        place = tmp_path / str(len(weights))
        arguments = command("train.py", *options, *extra, f"run_dir={place}")
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        weights.append(torch.load(place / "checkpoints" / "last.ckpt")["state_dict"])
        found.append(json.loads((place / "metrics.json").read_text())["best"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    one, two = weights
    start = build_task_state(options)
    moved = max(float((one[k] - start[k]).abs().max()) for k in one)
    assert moved > 1e-4  # plain SGD: the step is the gradient, scaled
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-6)


def build_task_state(options):
    import lightning as L

    cfg = compose(options)
    L.seed_everything(cfg.seed, verbose=False)
    return build_task(cfg).state_dict()


def test_progress_counts_all_epochs_and_shows_the_loss(train, fast, capsys):
    train("experiment=autoencoder", *fast, "trainer.enable_progress_bar=true", "callbacks.progress.every=1")
    shown = capsys.readouterr().err
    # 256 images less a tenth for validation: 4 batches of 64 in each of two epochs
    assert "8/8" in shown
    assert "epoch 2/2" in shown
    assert "loss=" in shown


def test_epochs_without_validation_have_no_validation_in_the_table(train, fast):
    result = train("experiment=autoencoder", *fast, "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2")
    rows = list(csv.DictReader((result.folder / "metrics.csv").open()))
    assert [bool(row["val/loss"]) for row in rows] == [False, True, False]
    assert result.best["epoch"] == 2


def test_baselines_know_nothing_of_precision(train, fast):
    few = ["data.sequences=20", "data.novel_sequences=4", "data.components=5", "trainer.max_epochs=1"]
    options = [option for option in fast if not option.startswith("data.limit")]
    run = ["experiment=convlstm", "model.hidden_channels=2", *options, *few]
    full, mixed = train(*run).metrics, train(*run, "trainer.precision=bf16-mixed").metrics
    baselines = [key for key in full if "baseline" in key]
    assert any("oracle" in key for key in baselines)
    assert {key: full[key] for key in baselines} == {key: mixed[key] for key in baselines}


def test_a_share_of_the_batches_that_is_none(train, fast):
    with pytest.raises(UserError, match=r"trainer\.limit_val_batches=0\.1: of 1 batches that leaves none"):
        train("experiment=autoencoder", *fast, "trainer.limit_val_batches=0.1")


def test_where_nothing_is_validated_the_last_epoch_is_not_called_chosen(train, fast):
    result = train("experiment=autoencoder", *fast, "trainer.limit_val_batches=0")
    assert "Test, epoch 2 the last: nothing was validated:" in runs.summary_of(result)


def test_losses_of_unequal_batches_are_weighted_by_their_rows(train, fast):
    result = train("experiment=autoencoder", *fast, "data.eval_batch_size=40")
    assert result.best["val/loss"] == pytest.approx(result.best["val/mse"])
    assert result.metrics["test/loss"] == pytest.approx(result.metrics["test/mse"])
