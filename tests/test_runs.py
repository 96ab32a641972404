"""What a run folder promises: finished runs stay, unfinished ones continue, others are refused."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from healing_mnist import runs
from healing_mnist.build import build_data, build_task, load_task
from healing_mnist.callbacks.metrics_table import MetricsTable
from healing_mnist.checks import UserError
from healing_mnist.config import as_override, compose, folder, folder_name
from healing_mnist.tasks.base import Task


def test_a_run_leaves_everything_that_explains_it(train, fast):
    result = train("experiment=joint", *[o for o in fast if o != "logger=none"])
    names = {path.name for path in result.folder.iterdir()}
    wanted = {
        "config.yaml",
        "overrides.yaml",
        "environment.json",
        "run.log",
        "metrics.csv",
        "metrics.json",
        "checkpoints",
    }
    assert wanted <= names
    events = [path.read_bytes() for path in result.folder.glob("events.out.tfevents*")]
    assert any(b"_hparams_/session_start_info" in content for content in events)
    found = json.loads((result.folder / "metrics.json").read_text())
    assert {"test/mse", "test/mae", "test/psnr", "test/ssim", "test/accuracy"} <= found["metrics"].keys()
    assert found["objective"] == found["best"]["val/loss"]


def test_same_seed_same_metrics_and_another_seed_others(train, fast):
    first = train("experiment=joint", *fast)
    metrics = (first.folder / "metrics.json").read_bytes()
    again = train("experiment=joint", "fresh=true", *fast)
    assert (again.folder / "metrics.json").read_bytes() == metrics
    assert train("experiment=joint", "seed=1", *fast).metrics != first.metrics


def test_fresh_deletes_only_a_run_and_only_for_one_that_can_run(train, fast, tmp_path):
    done = train("experiment=autoencoder", *fast)
    with pytest.raises(UserError, match=r"model\.latent_dim=0"):
        train("experiment=autoencoder", f"run_dir='{done.folder}'", "fresh=true", "model.latent_dim=0", *fast)
    assert (done.folder / "metrics.json").exists()
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "config.yaml").write_text("theirs: 1")
    with pytest.raises(UserError, match=r"holds no overrides\.yaml"):
        train("experiment=autoencoder", f"run_dir={tmp_path}", "fresh=true", *fast)
    assert (tmp_path / "thesis.tex").exists()


def test_a_finished_run_is_not_run_again(train, fast, monkeypatch):
    first = train("experiment=autoencoder", *fast)
    monkeypatch.setattr(runs, "_train", lambda *_: pytest.fail("was run again"))
    assert train("experiment=autoencoder", *fast) == first


def test_figures_of_a_finished_run_are_drawn_by_an_evaluation(train, fast, caplog):
    first = train("experiment=autoencoder", *fast)
    words = runs.summary_of(first)
    assert "test/mse" in words
    assert "Figures" not in words  # analysis=none and logger=none left none
    assert "TensorBoard" not in words
    with caplog.at_level("INFO", "healing_mnist"):
        train("experiment=autoencoder", *fast)
        assert "its figures" not in caplog.text
        train("experiment=autoencoder", *fast, "analysis=reconstruction")
    assert f"its figures stay as they are; evaluate.py run={first.folder} analysis=... draws others" in caplog.text


def test_other_settings_in_the_same_folder_are_refused_with_the_difference(train, fast, tmp_path):
    place = f"run_dir={tmp_path / 'here'}"
    train("experiment=autoencoder", place, *fast)
    with pytest.raises(UserError, match=r"model\.latent_dim: 5 there, 7 now"):
        train("experiment=autoencoder", place, "model.latent_dim=7", *fast)


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


def test_a_plateau_is_judged_where_validation_was(train, fast):
    options = ["experiment=autoencoder", "scheduler=plateau", "scheduler.patience=1", *fast, "trainer.max_epochs=8"]
    result = train(*options, "trainer.check_val_every_n_epoch=4")
    state = torch.load(result.folder / "checkpoints" / "last.ckpt")["lr_schedulers"][0]
    assert (state["last_epoch"], state["num_bad_epochs"]) == (2, 0)


def test_every_epoch_leaves_a_checkpoint_to_continue_from(train, fast):
    options = [
        "experiment=autoencoder",
        *fast,
        "trainer.max_epochs=3",
        "callbacks.checkpoint.mode=max",
    ]  # the first is the worst
    place = train(*options).folder / "checkpoints"
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


def test_checkpoint_loads_by_itself_in_a_new_process(train, fast):
    result = train("experiment=joint", "model.latent_dim=4", *fast)
    path = result.folder / "checkpoints" / "best.ckpt"
    torch.load(path, weights_only=True)
    code = (
        "import sys, torch; from pathlib import Path; from healing_mnist.build import load_task\n"
        "print(load_task(Path(sys.argv[1])).network(torch.zeros(2, 1, 28, 28)).embedding.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd="/")
    assert "torch.Size([2, 4])" in done.stdout, done.stderr


def test_a_checkpoint_of_another_model_is_refused_with_what_does_not_fit(train, fast):
    path = train("experiment=autoencoder", *fast).folder / "checkpoints" / "best.ckpt"
    other = [
        "experiment=embedding_classifier",
        "model.latent_dim=9",
        as_override("pretrained.checkpoint", str(path)),
        *fast,
    ]
    with pytest.raises(
        UserError, match=r"best\.ckpt: a checkpoint of another model:\s+.*\(5, 128\) in the file, \(9, 128\)"
    ):
        train(*other)


def test_a_damaged_checkpoint_is_named_and_left(tmp_path):
    path = tmp_path / "best.ckpt"
    path.write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"not a readable checkpoint .* left in place"):
        load_task(path)
    assert path.exists()


def test_pretrained_encoder_is_made_once_and_found_afterwards(train, fast, monkeypatch):
    options = [*fast, "seed=3", "+pretrained.settings.analysis=none", "pretrained.settings.trainer.max_epochs=2"]
    first = train("experiment=embedding_classifier", *options)
    (stage,) = (first.folder.parent.parent / "autoencoder").iterdir()
    made = torch.load(stage / "checkpoints" / "best.ckpt")["state_dict"]
    used = torch.load(first.folder / "checkpoints" / "best.ckpt")["state_dict"]
    encoder = [key for key in made if key.startswith("network.encoder.")]
    assert encoder
    assert all(torch.equal(made[key], used[key]) for key in encoder)
    trained = []
    original = runs._train
    monkeypatch.setattr(runs, "_train", lambda *given: trained.append(given[1].parent.name) or original(*given))
    train("experiment=embedding_classifier", *options, "model.dropout=0.1")
    assert trained == ["embedding_classifier"]
    # the encoder's own experiment, asked for directly, is the same run
    train("experiment=autoencoder", "data.limit=256", "trainer.max_epochs=2", "seed=3")
    assert trained == ["embedding_classifier"]


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(train, fast):
    with pytest.raises(UserError, match=r"train/loss is nan at step \d+ \(epoch \d+\)"):
        train("experiment=autoencoder", *fast, "optimizer=sgd", "optimizer.lr=1e30", "scheduler=none")


def test_test_metrics_are_those_of_the_best_epoch_not_the_last(train, fast):
    options = [
        "experiment=autoencoder",
        *fast,
        "trainer.max_epochs=3",
        "callbacks.checkpoint.mode=max",
    ]  # the first is the worst
    result = train(*options)
    best, last = (result.folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    assert torch.load(best)["epoch"] + 1 == result.best["epoch"] < torch.load(last)["epoch"] + 1 == 3
    data = build_data(compose(options))
    data.setup()
    batch = data.batch("test", torch.arange(len(data.tables["test"]["index"])))
    for path, same in ((best, True), (last, False)):
        with torch.no_grad():
            error = float((load_task(path).network(batch.input).image - batch.input).square().mean())
        assert (result.metrics["test/mse"] == pytest.approx(error, rel=1e-4)) is same


def test_the_epoch_reported_is_the_one_tested_however_it_was_chosen(train, fast):
    options = ["experiment=autoencoder", *fast, "trainer.max_epochs=3", "callbacks.checkpoint.mode=max"]
    assert train(*options, "callbacks.checkpoint=null").best["epoch"] == 3
    by_training = train(*options, "callbacks.checkpoint.monitor=train/loss", "callbacks.checkpoint.mode=min")
    rows = list(csv.DictReader((by_training.folder / "metrics.csv").open()))
    lowest = min(rows, key=lambda row: float(row["train/loss"]))
    assert by_training.best["epoch"] == float(lowest["epoch"])
    assert by_training.objective == pytest.approx(float(lowest["val/loss"]))


def test_the_training_loss_of_an_epoch_is_that_of_its_rows(train, fast):
    """With a learning rate of nothing it is the same for any batch size, also where the last batch is small."""
    options = ["experiment=autoencoder", "model.batch_norm=none", *fast, "trainer.max_epochs=1"]
    options += ["optimizer=sgd", "optimizer.lr=1e-30", "scheduler=none"]
    losses = [train(*options, f"data.batch_size={size}").best["train/loss"] for size in (228, 230)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_same_settings_have_the_same_folder_however_said(tmp_path):
    said = [["experiment=joint", "model.latent_dim=8"], ["model.latent_dim=8", "experiment=joint", "seed=0"]]
    places = {folder(compose(o)) for o in said}
    assert len(places) == 1
    assert places.pop().name == "latent_dim=8"
    assert folder(compose(["experiment=joint"])).name == "default"
    assert folder(compose(["experiment=joint", "data.root=/somewhere"])).name == "default"


def test_folder_names_are_short_and_distinct():
    long = {f"model.a{i}": "x" * 20 for i in range(20)}
    names = {folder_name(long), folder_name(long | {"model.a19": "y"})}
    assert len(names) == 2
    assert all(len(name) <= 120 for name in names)
    assert folder_name({"model.lr": 1, "optimizer.lr": 2}) == "model.lr=1,optimizer.lr=2"
    assert "/" not in folder_name({"data.root": "/a/b"})


def test_unwritable_outputs_are_named(train, fast, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as error:
        train("experiment=autoencoder", *fast, f"run_dir={tmp_path / 'file' / 'run'}")
    assert str(tmp_path / "file") in str(error.value.filename)


def test_ddp_on_two_processes_takes_the_same_first_step_as_one(fast, command, tmp_path):
    """Loss and gradients of one step on the same rows; without batch norm, whose statistics are per process."""
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
    ]
    weights, losses = [], []
    for extra in (
        ["data.batch_size=64"],
        ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=32"],
    ):
        place = tmp_path / str(len(weights))
        arguments = command("train.py", *options, *extra, f"run_dir={place}")
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        weights.append(torch.load(place / "checkpoints" / "last.ckpt")["state_dict"])
        losses.append(json.loads((place / "metrics.json").read_text())["best"]["train/loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
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


@pytest.mark.parametrize(
    ("environ", "settings", "leads"),
    [
        ({}, [], True),
        ({"LOCAL_RANK": "1"}, ["trainer=ddp"], False),
        ({"LOCAL_RANK": "0", "RANK": "2"}, ["trainer=ddp"], False),  # torchrun, first process of the second node
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, ["trainer=ddp", "trainer.num_nodes=2"], False),
        ({"SLURM_PROCID": "1"}, ["trainer=ddp"], False),
        ({"SLURM_PROCID": "0"}, ["trainer=ddp"], True),
        ({"SLURM_PROCID": "1"}, [], True),  # two runs beside each other, each of one process
        ({"LOCAL_RANK": "1"}, [], True),  # an earlier stage, under torchrun
        ({"LOCAL_RANK": "1"}, ["trainer.devices=2"], False),
        ({"LOCAL_RANK": "1"}, ["trainer.devices=[3]"], True),
    ],
)
def test_one_process_of_all_keeps_the_folder(environ, settings, leads, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert runs._leads(compose(settings)) == leads


def test_fresh_waits_for_whoever_is_at_work_in_the_folder(train, fast, monkeypatch):
    folder = train("experiment=autoencoder", *fast).folder
    original, there = runs.locked, []

    def locked(place):
        there.append((place / "metrics.json").exists())
        return original(place)

    monkeypatch.setattr(runs, "locked", locked)
    train("experiment=autoencoder", "fresh=true", *fast)
    assert there == [True], "deleted before the folder was locked"
    assert (folder / "metrics.json").exists()


def test_an_experiment_trains_without_the_stage_before_it(train, fast, monkeypatch):
    monkeypatch.setattr(runs, "read_checkpoint", None)  # which a stage would be read with
    data = ["data.num_sequences=40", "data.num_eval_sequences=20", "trainer.max_epochs=1"]
    cfg = compose(["experiment=cnn_lstm", "pretrained=none", *fast, *data])
    runs.load_pretrained(build_task(cfg), cfg)
    assert folder(cfg) != folder(compose(["experiment=cnn_lstm", *fast, *data]))


def test_a_stage_divides_the_images_as_its_successor_does():
    stage = compose(["experiment=cnn_lstm", "data.seed=3", "data.cache=/x"]).pretrained.settings
    assert (stage.seed, stage.data.cache) == (3, "/x")


def test_a_stage_is_trained_on_the_device_that_is_named_and_a_run_is_the_same_on_any():
    stage = compose(["experiment=cnn_lstm", "trainer.devices=[1]"])
    assert stage.pretrained.settings.trainer.devices == [1]
    assert compose(["experiment=cnn_lstm", "trainer.devices=2"]).pretrained.settings.trainer.devices == 1
    assert folder(stage) == folder(compose(["experiment=cnn_lstm"]))
    assert folder(compose(["trainer.devices=[0,1]"])) != folder(compose([]))


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["experiment=convlstm", "callbacks=default"], "collapse=none"),
        (["experiment=cifar_autoencoder_cnn", "data.blur=null"], "blur=null"),
        (["~scheduler"], "scheduler=none"),
        (["scheduler=none"], "scheduler=none"),
        (["experiment=autoencoder", "optimizer=sgd"], "optimizer=SGD"),
    ],
)
def test_what_is_left_out_names_the_folder_too(overrides, name):
    assert folder(compose(overrides)).name.startswith(name)


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


def test_the_callbacks_follow_the_direction():
    best = compose(["callbacks=early_stopping", "objective=val/accuracy", "direction=maximize"]).callbacks
    assert (best.early_stopping.mode, best.checkpoint.mode) == ("max", "max")
    assert (best.early_stopping.monitor, best.checkpoint.monitor) == ("val/accuracy", "val/accuracy")
