"""Measuring finished runs again, and drawing several beside each other."""

import csv
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from healing_mnist import evaluation, runs
from healing_mnist.build import build_data, load_task
from healing_mnist.checks import UserError
from healing_mnist.cli import split_runs
from healing_mnist.config import compose, evaluation_name, plain
from healing_mnist.runs import finished


def test_evaluate_repeats_the_test_and_takes_other_data(train, fast):
    result = train("experiment=joint", *fast)
    again = evaluation.evaluate(result.folder)
    assert again.metrics == result.metrics
    turned = evaluation.evaluate(result.folder, ["data=healing_rotation"])
    data = build_data(compose(["experiment=joint", "data=healing_rotation"]))
    data.setup()
    batch = data.batch("test", torch.arange(len(data.tables["test"]["index"])))
    with torch.no_grad():
        image = load_task(result.folder / "checkpoints" / "best.ckpt").network(batch.input).image
    assert turned.metrics["test/mse"] == pytest.approx(float(((image - batch.input) ** 2).mean()), rel=1e-4)
    assert turned.metrics["test/mse"] != result.metrics["test/mse"]
    assert turned.folder.is_relative_to(result.folder / "evaluations")
    with pytest.raises(UserError, match=r"model\.latent_dim=3: an evaluation cannot change this"):
        evaluation.evaluate(result.folder, ["model.latent_dim=3"])
    with pytest.raises(UserError, match=r"was trained on images of 1x28x28 .*, not 3x32x32"):
        evaluation.evaluate(result.folder, ["data.source=cifar10"])
    with pytest.raises(UserError, match="not a finished run"):
        evaluation.evaluate(result.folder / "figures")


def test_runs_side_by_side_keep_their_own_names(train, fast):
    made = [("joint", 5), ("autoencoder", 5), ("autoencoder", 4)]
    found = [train(f"experiment={name}", f"model.latent_dim={size}", *fast).folder for name, size in made]
    found += [found[0]]  # asked for twice is drawn once
    header = next(csv.reader((evaluation.compare(found) / "side_by_side.csv").open()))
    assert header[2:] == [f"mse {run.parent.name} {run.name}" for run in found[:3]]


def test_runs_are_drawn_side_by_side_without_the_analyses_they_were_trained_with(train, fast):
    said = [o for o in fast if not o.startswith("analysis=")] + ["analysis.embeddings.points=50"]
    found = [train("experiment=autoencoder", f"model.latent_dim={size}", *said).folder for size in (4, 5)]
    assert evaluation.compare(found, ["analysis=none"])


def test_an_evaluation_is_one_process_however_many_trained(train, fast, monkeypatch):
    folder = train("experiment=autoencoder", *fast).folder
    said, asked = folder / "overrides.yaml", []
    said.write_text(said.read_text() + "- trainer.strategy=ddp\n- trainer.devices=2\n")
    original = runs.make_trainer
    monkeypatch.setattr(
        runs, "make_trainer", lambda *given, **changes: asked.append(changes) or original(*given, **changes)
    )
    assert evaluation.evaluate(folder).metrics == finished(folder).metrics
    assert asked == [{"devices": 1, "strategy": "auto", "num_nodes": 1}]


def test_sequences_that_were_trained_on_are_no_test(train, fast):
    few = ["data.sequences=20", "data.novel_sequences=4", "data.components=5", "trainer.max_epochs=1"]
    options = [option for option in fast if not option.startswith("data.limit")]
    folder = train("experiment=convlstm", "model.hidden_channels=2", *options, *few).folder
    for override in ("seed=1", "data.seed=1", "data.test_fraction=0.3"):
        with pytest.raises(
            UserError, match=r"was trained with .*, and would be tested on sequences that it was trained"
        ):
            evaluation.evaluate(folder, [override])
    assert evaluation.evaluate(folder, ["data.noise=0.1"]).metrics
    assert evaluation.evaluate(folder, ["data.held_out_frame=8"]).metrics
    held = train("experiment=convlstm", "model.hidden_channels=2", "data.test_fraction=0", *options, *few).folder
    with pytest.raises(UserError, match=r"data\.held_out_frame=8: .* was trained with 4"):
        evaluation.evaluate(held, ["data.held_out_frame=8"])


@pytest.mark.parametrize(
    ("trained", "now", "warned"),
    [("cnn_lstm", "convlstm", True), ("convlstm", "cnn_lstm", True), ("joint", "cnn_lstm", False)],
)
def test_data_that_deal_a_source_in_another_way_are_warned_of(tmp_path, caplog, trained, now, warned):
    OmegaConf.save({"data": plain(compose([f"experiment={trained}"]))["data"]}, tmp_path / "config.yaml")
    cfg = compose([f"experiment={now}"])
    evaluation._check_dealing(tmp_path, build_data(cfg).dealt_by, plain(cfg.data))
    assert (f"may be tested on images of data.source={cfg.data.source} that it was trained" in caplog.text) == warned


def test_data_without_a_source_are_not_warned_of(tmp_path, caplog):
    OmegaConf.save({"data": {"_target_": "somebody.Elses"}}, tmp_path / "config.yaml")
    evaluation._check_dealing(tmp_path, ("seed",), {"_target_": "some.Other"})
    assert not caplog.text


def test_sequences_are_drawn_side_by_side(train, fast):
    data = ["data.num_sequences=40", "data.num_eval_sequences=20", "pretrained=none", "model.encoder.freeze=false"]
    found = [train("experiment=cnn_lstm", *fast, *data, f"model.hidden_size={size}").folder for size in (4, 5)]
    place = evaluation.compare(found)
    assert len((place / "side_by_side.csv").read_text().splitlines()) == 11


def test_an_evaluation_forgets_what_was_said_of_another_analysis(train, fast):
    result = train(
        "experiment=autoencoder", *[o for o in fast if o != "analysis=none"], "analysis.embeddings.points=50"
    )
    assert evaluation.evaluate(result.folder, ["analysis=none"]).metrics == result.metrics


def test_settings_that_changed_in_conf_are_not_taken_for_those_of_the_run(train, fast):
    result = train("experiment=autoencoder", *fast)
    config = result.folder / "config.yaml"
    config.write_text(config.read_text().replace("square_ratio: 0.0", "square_ratio: 0.5"))
    with pytest.raises(UserError, match=r"conf has changed .*:\s+data\.square_ratio: 0\.5 there, 0\.0 now"):
        evaluation.evaluate(result.folder)


def test_evaluations_that_differ_in_analysis_have_folders_of_their_own():
    said = [["analysis=joint"], ["analysis=joint", "~analysis.curves"], ["analysis=joint", "+analysis.x.y=1"]]
    assert len({evaluation_name(words) for words in said}) == 3


def test_an_evaluation_with_other_sequences_has_a_folder_of_its_own():
    assert evaluation_name(["data/sequences=var_plain"]) == "evaluations/sequences=var_plain"


def test_all_runs_are_looked_at_before_one_is_measured(train, fast):
    result = train("experiment=autoencoder", *fast)
    with pytest.raises(UserError, match=r"run=nowhere: not a finished run"):
        evaluation.evaluate_all([result.folder, Path("nowhere")])
    assert not (result.folder / "evaluations").exists()


def test_no_run_is_no_evaluation():
    with pytest.raises(UserError, match=r"run=\[\]: names no run"):
        split_runs(["run=[]"])


def test_an_evaluation_is_checked_first(train, fast):
    result = train("experiment=autoencoder", *fast)
    with pytest.raises(UserError, match=r"data\.square_ratio=abc: must be a number"):
        evaluation.evaluate(result.folder, ["data=healing_square", "data.square_ratio=abc"])


def test_what_was_said_of_other_data_holds_no_longer(train, fast):
    said = ["data=healing_square", "data.square_ratio=1", "data.rotation_ratio=0.5", "data.val_fraction=0.2"]
    folder = train("experiment=autoencoder", *fast, *said).folder
    data = evaluation._composed_again(folder, ["data=images"]).data
    assert (data.square_ratio, data.rotation_ratio) == (0, 0)
    assert (data.val_fraction, data.limit, data.batch_size) == (0.2, 256, 64)
    assert evaluation._composed_again(folder, ["data=n6", "data.novel_sequences=7"]).data.val_fraction == 0.2


def test_comparisons_of_other_runs_and_other_data_lie_apart(train, fast):
    sizes = [train("experiment=autoencoder", f"model.latent_dim={size}", *fast).folder for size in (3, 4, 5)]
    again = train("experiment=autoencoder", "model.latent_dim=5", *fast, "data.batch_size=32").folder
    places = {evaluation.compare(pair) for pair in (sizes[:2], sizes[1:], [sizes[2], again])}
    places.add(evaluation.compare(sizes[:2], ["data=healing_square"]))
    assert len(places) == 4
    assert None not in places


@pytest.mark.parametrize(
    ("key", "override", "outdated"),
    [
        ("data.square_size", "data=images", True),
        ("data.source", "data=images", False),
        ("data.limit", "data=n6", True),  # which has none
        ("data.angles", "data/sequences=var_grow", True),
        ("data.horizon", "data/sequences=var_grow", False),
        ("analysis.embeddings.points", "analysis=none", True),
        ("model.latent_dim", "data=images", False),
        ("data.angles", "data.length=4", False),
    ],
)
def test_another_option_of_a_group_outdates_what_it_sets_itself(key, override, outdated):
    assert evaluation._outdated(key, override) == outdated


def test_what_an_experiment_says_of_its_own_data_does_not_follow_to_others(train, fast):
    small = [option for option in fast if not option.startswith("data.limit")]
    few = ["data.num_sequences=40", "data.num_eval_sequences=20", "pretrained=none", "trainer.max_epochs=1"]
    folder = train("experiment=cnn_lstm_missing_measurements", *small, *few).folder
    data = evaluation._composed_again(folder, ["data=n6", "data.size=28"]).data
    assert data.keys() == compose([], "data/n6").data.keys()
    assert (data.size, data.batch_size, data.rotation.size) == (28, 64, 4)
    assert evaluation._composed_again(folder, ["data=n6", "data.rotation.size=8"]).data.rotation.persistence == 0.9
    for words in (["data=sequences", "data/sequences=var_grow"], ["data/sequences=var_grow", "data=sequences"]):
        data = evaluation._composed_again(folder, words).data
        assert (data.length, data.missing_area) == ([3, 6], 0.2)  # data of the same kind: the experiment has its say


def test_an_evaluation_takes_the_best_epoch(train, fast):
    result = train("experiment=autoencoder", *fast, "callbacks.checkpoint.mode=max")  # the first
    assert result.best["epoch"] == 1
    assert evaluation.evaluate(result.folder).metrics == result.metrics
