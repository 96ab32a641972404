"""Points chosen by Optuna: the study, resume, pruning."""

import json
from types import SimpleNamespace

import optuna
import pytest

from healing_mnist.sweeps import checking
from healing_mnist.sweeps.definition import Definition, Settings
from healing_mnist.sweeps.points import Dimension, parse
from healing_mnist.sweeps.pruning import Pruning
from healing_mnist.sweeps.results import Run
from healing_mnist.sweeps.search import JOURNAL, Search, distribution, open_storage
from healing_mnist.sweeps.sweeper import PointSweeper

WEIGHT = "task.reconstruction_weight"
TPE = ["sweep=base", "sweep.method=tpe", f"{WEIGHT}=interval(0,1)", "optimizer=adam,sgd"]


def study_in(folder):
    (name,) = optuna.get_all_study_names(open_storage(folder / JOURNAL))
    return optuna.load_study(study_name=name, storage=open_storage(folder / JOURNAL))


def test_a_search_fills_its_study_and_goes_on(sweep):
    assert sweep(*TPE, "sweep.trials=4").code == 0
    done = sweep(*TPE, "sweep.trials=6", "hydra.launcher.slots_per_device=1")
    assert done.code == 0, done.err
    assert "2 of 6 jobs to run" in done.out
    trials = study_in(done.folder).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 6
    for trial in trials:
        assert trial.value == pytest.approx((trial.params[WEIGHT] - 0.3) ** 2, abs=1e-3)  # the objective of trivial.py
    best = min(trials, key=lambda trial: trial.value)
    written = (done.folder / "best.yaml").read_text()
    assert f"override /optimizer: {best.params['optimizer']}" in written
    assert f"reconstruction_weight: {best.params[WEIGHT]:.4g}" in written
    assert (done.folder / "figures" / "history_of_the_search.png").exists()


def test_a_journal_that_is_damaged_or_lost_is_named(sweep):
    done = sweep(*TPE, "sweep.trials=2")
    assert done.code == 0, done.err
    journal, jobs = done.folder / JOURNAL, sorted(path.name for path in done.folder.iterdir())
    whole = journal.read_bytes()
    middle = whole.replace(b"\n", b"}\n", 3)
    for content, what in ((middle, "damaged"), (b"\x9c" + whole, "damaged"), (None, "holds none of the 2 trials")):
        journal.unlink() if content is None else journal.write_bytes(content)
        again = sweep(*TPE, "sweep.trials=3")
        assert again.code == 1
        assert f"{journal}: {what}" in again.err
        assert "fresh=true" in again.err
        assert "Traceback" not in again.err
        assert sorted(path.name for path in done.folder.iterdir()) == jobs
    journal.write_bytes(whole[:-20])  # the last line is that of a trial that has ended
    again = sweep(*TPE, "sweep.trials=3")
    assert again.code == 0, again.err
    assert f"{journal}: the last line is not whole, and left out" in again.out
    assert [trial.state.name for trial in study_in(done.folder).trials] == ["COMPLETE"] * 3


def test_a_trial_that_failed_is_tried_again(sweep, tmp_path):
    for weight in ("0.7", "0.9"):
        (tmp_path / f"break-{weight}").write_text("raise")
    done = sweep("sweep=base", "sweep.method=tpe", f"{WEIGHT}=0.1,0.7,0.9", "sweep.trials=5")
    assert done.code == 1
    failed = [trial for trial in study_in(done.folder).trials if trial.state.name == "RUNNING"]
    assert failed
    assert all(float(trial.params[WEIGHT]) > 0.5 for trial in failed)
    for path in tmp_path.glob("break-*"):
        path.unlink()
    again = sweep("sweep=base", "sweep.method=tpe", f"{WEIGHT}=0.1,0.7,0.9", "sweep.trials=5")
    assert again.code == 0, again.err
    assert [trial.state.name for trial in study_in(done.folder).trials] == ["COMPLETE"] * 5


def test_random_points_from_the_command_line(sweep):
    done = sweep("sweep=base", "sweep.method=random", f"{WEIGHT}=interval(0,1)", "sweep.trials=4", "seed=1,2")
    assert done.code == 0, done.err
    assert len(list(done.folder.glob("*/metrics.json"))) == 8
    assert "Mean ± standard deviation over seeds 1, 2" in done.out


def test_the_ends_of_every_space_are_checked_first(sweep):
    done = sweep("sweep=base", "sweep.method=tpe", f"{WEIGHT}=interval(0,3)", "sweep.trials=4")
    assert done.code == 1
    assert "task.reconstruction_weight=3" in done.err
    assert not list(done.folder.glob("*/metrics.json"))


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ("a=interval(0,1)", optuna.distributions.FloatDistribution(0, 1)),
        ("a=tag(log,interval(1e-5,0.1))", optuna.distributions.FloatDistribution(1e-5, 0.1, log=True)),
        ("a=int(interval(1,7))", optuna.distributions.IntDistribution(1, 7)),
        ("a=tag(log,int(interval(1,100)))", optuna.distributions.IntDistribution(1, 100, log=True)),
        ("a=range(2,9,3)", optuna.distributions.IntDistribution(2, 8, step=3)),
        ("a=32,64,128", optuna.distributions.CategoricalDistribution(("32", "64", "128"))),
        ("a=relu,tanh", optuna.distributions.CategoricalDistribution(("relu", "tanh"))),
    ],
)
def test_spaces_become_optunas(space, expected):
    assert distribution(parse([space])[1]["a"]) == expected


def test_trials_are_pruned_by_what_the_search_is_for_and_begun_ones_are_checked(tmp_path, monkeypatch):
    definition = Definition("a", "tpe", "val/accuracy", "maximize", [], {"x": ""}, {"0000,x=1": {"x": "1"}})
    sweeper, jobs = PointSweeper(), {}
    sweeper.fixed, sweeper.folder, sweeper.fresh, sweeper.composer = {}, tmp_path, False, None
    monkeypatch.setattr(checking, "check", lambda *arguments: jobs.update(arguments[4]))
    sweeper._source(Settings(method="tpe", prune=True), definition, [Dimension("x", (), 0.0, 1.0)], None)
    assert jobs.keys() == {"probe 0", "probe 1", "0000,x=1"}
    assert all("monitor:val/accuracy}" in overrides[0] for overrides in jobs.values())


def test_a_search_that_goes_on_draws_other_points(tmp_path):
    definition = Definition("a", "tpe", "val/loss", "minimize", [], {"x": ""}, {})
    for trials in (2, 4):
        search = Search(tmp_path, definition, [Dimension("x", (), 0.0, 1.0)], Settings(method="tpe", trials=trials))
        for name in search:
            search.tell(Run(name, {}, "finished", {"val/loss": 1.0}))
    assert len({trial.params["x"] for trial in search.study.trials}) == 4


def test_a_trial_that_was_never_finished_being_made_is_given_up(tmp_path):
    definition = Definition("a", "tpe", "val/loss", "minimize", [], {"x": ""}, {})
    search = Search(tmp_path, definition, [Dimension("x", (), 0.0, 1.0)], Settings(method="tpe", trials=1))
    search.study._storage.create_new_trial(search.study._study_id)
    assert [name[:4] for name in search] == ["0001"]


@pytest.mark.parametrize(("value", "stopped"), [(5.0, True), (0.5, False)])
def test_a_trial_below_the_median_is_stopped(tmp_path, value, stopped):
    definition = Definition("a", "tpe", "val/loss", "minimize", [], {"x": ""}, {})
    search = Search(tmp_path, definition, [Dimension("x", (), 0.0, 1.0)], Settings(method="tpe", trials=10))
    for _ in range(5):  # the median pruner waits for so many
        trial = search.study.ask(search.distributions)
        trial.report(1.0, 1)
        search.study.tell(trial, 1.0)
    name = next(iter(search))
    trainer = SimpleNamespace(
        default_root_dir=str(tmp_path / name), callback_metrics={"val/loss": value}, current_epoch=0, should_stop=False
    )
    callback = Pruning("val/loss")
    callback.on_train_start(trainer, None)
    callback.on_train_epoch_end(trainer, SimpleNamespace(validated=False))  # the value is an earlier epoch's
    assert not trainer.should_stop
    callback.on_train_epoch_end(trainer, SimpleNamespace(validated=True))
    assert trainer.should_stop == stopped == (tmp_path / name / "pruned").exists()
    search.tell(Run(name, {}, "pruned" if stopped else "finished", {"val/loss": value}))
    assert study_in(tmp_path).trials[-1].state.name == ("PRUNED" if stopped else "COMPLETE")
    assert study_in(tmp_path).trials[-1].intermediate_values == {1: value}
    again = SimpleNamespace(default_root_dir=trainer.default_root_dir, current_epoch=1, should_stop=False)
    Pruning("val/loss").on_train_start(again, None)  # killed in its test, and started again
    assert again.should_stop == stopped


def test_pruning_leaves_a_run_without_a_trial_alone(tmp_path):
    trainer = SimpleNamespace(
        default_root_dir=str(tmp_path), callback_metrics={"val/loss": 9.0}, current_epoch=0, should_stop=False
    )
    callback = Pruning("val/loss")
    callback.on_train_start(trainer, None)
    callback.on_train_epoch_end(trainer, SimpleNamespace(validated=True))
    assert not trainer.should_stop
    assert json.dumps([path.name for path in tmp_path.iterdir()]) == "[]"


def test_a_search_goes_the_way_of_its_objective_and_learns_nothing_from_a_collapsed_trial(tmp_path):
    definition = Definition("s", "tpe", "val/accuracy", "maximize", [], {"a": "interval(0,1)"}, {})
    search = Search(tmp_path, definition, [Dimension("a", low=0.0, high=1.0)], Settings(method="tpe", trials=2))
    assert search.study.direction.name == "MAXIMIZE"
    name = next(iter(search))
    search.tell(Run(name, {}, state="collapsed", metrics={"val/accuracy": 0.9}))
    assert [trial.state.name for trial in search.study.trials] == ["PRUNED"]
