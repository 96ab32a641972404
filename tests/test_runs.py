"""What a run folder promises: it explains itself, finished runs stay, others are refused, stages are found again."""

import json
import subprocess
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from healing_mnist import runs
from healing_mnist.build import build_task
from healing_mnist.checks import UserError
from healing_mnist.config import as_override, compose, folder


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
    assert not any(b"_hparams_/experiment" in content for content in events)  # which all runs would be shown by
    board = EventAccumulator(str(result.folder))
    board.Reload()
    content = board.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    settings = metadata.parse_session_start_info_plugin_data(content).hparams
    assert settings["experiment"].string_value == "joint"
    assert settings["model"].string_value == "JointAutoencoder"
    assert settings["trainer.max_epochs"].number_value == settings["model.latent_dim"].number_value - 3 == 2
    assert not {"output_dir", "trainer.accelerator", "data.root"} & set(settings)
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


def test_a_checkpoint_that_does_not_fit_is_named_before_anything_is_written(train, fast, tmp_path):
    options = ["experiment=cnn_lstm", "data.num_sequences=40", "data.num_eval_sequences=20", *fast]
    (tmp_path / "damaged.ckpt").write_text("")
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"network.encoder.x": torch.zeros(1)}}, other)
    torch.save(torch.zeros(1), tmp_path / "tensor.ckpt")
    wrong = {"none": "there is no checkpoint", "damaged": "not a readable", "tensor": "no state_dict"}
    for name, what in (wrong | {"other": "another model"}).items():
        path = tmp_path / f"{name}.ckpt"
        with pytest.raises(UserError, match=rf"^pretrained\.checkpoint={path}: .*{what}"):
            train(*options, f"pretrained.checkpoint={path}")
    assert {path.name for path in tmp_path.iterdir()} == {"damaged.ckpt", "other.ckpt", "tensor.ckpt"}


def test_unwritable_outputs_are_named(train, fast, tmp_path):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "run"
    with pytest.raises(UserError, match=rf"run_dir={place}: cannot be made \(Not a directory\); see output_dir"):
        train("experiment=autoencoder", *fast, f"run_dir={place}")


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
    runs.load_earlier_stage(build_task(cfg), cfg)
    assert folder(cfg) != folder(compose(["experiment=cnn_lstm", *fast, *data]))
