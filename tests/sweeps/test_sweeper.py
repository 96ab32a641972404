"""Whole sweeps, with jobs that do nothing but leave what a training leaves."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trivial
import yaml
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from healing_mnist.checks import UserError
from healing_mnist.config import compose
from healing_mnist.sweeps import checking, display, launcher, points, summary, sweeper, tables
from healing_mnist.sweeps.definition import Definition, Settings
from healing_mnist.sweeps.launcher import SlotLauncher

GRID = ["task.reconstruction_weight=0.1,0.25", "seed=1,2"]


def rows(folder, name="table.csv"):
    with open(folder / name) as file:
        return list(csv.DictReader(file))


def jobs_of(folder):
    return sorted(path.parent.name for path in folder.glob("*/metrics.json"))


def test_a_grid_from_the_command_line(sweep):
    done = sweep(*GRID)
    assert done.code == 0, done.err
    assert jobs_of(done.folder) == sorted(f"reconstruction_weight={w},seed={s}" for w in (0.1, 0.25) for s in (1, 2))
    first = rows(done.folder)[0]
    assert float(first["task.reconstruction_weight"]) == 0.1
    # by hand: (0.1 - 0.3)^2 + 0.01 * {1, 2} has mean 0.055 and standard deviation 0.01 / sqrt(2)
    assert float(first["val/loss"]) == pytest.approx(0.055)
    assert float(first["val/loss sd"]) == pytest.approx(0.01 / 2**0.5)
    assert int(first["finished"]) == 2
    assert yaml.safe_load((done.folder / "best.yaml").read_text()) == {"task": {"reconstruction_weight": 0.25}}
    assert "epoch 4 in process" in (done.folder / "reconstruction_weight=0.1,seed=1" / "job.log").read_text()


def test_the_default_folder_is_named_by_what_is_run(sweep, tmp_path):
    done = sweep(f"output_dir={tmp_path}", "task.reconstruction_weight=0.1", "seed=1,2", folder=None)
    assert done.code == 0, done.err
    assert [path.name for path in (tmp_path / "sweeps").iterdir()] == ["joint-seed,reconstruction_weight=0.1"]


def test_a_setting_is_looked_for_in_the_group_that_each_job_has(sweep):
    done = sweep("data=sequences,images", "data.horizon=2")
    assert "2 of 2 jobs cannot run" in done.err
    assert "data=sequences: task: Joint learns from single images" in done.err
    assert "data=images: unknown setting 'data.horizon'" in done.err


def test_the_same_command_again_runs_what_is_missing(sweep):
    done = sweep(*GRID)
    lost = done.folder / "reconstruction_weight=0.25,seed=2"
    stamps = {path: path.stat().st_mtime_ns for path in done.folder.glob("*/metrics.json")}
    table = rows(done.folder)
    (lost / "metrics.json").unlink()
    (lost / "last").write_text("3")
    again = sweep(*GRID)
    assert again.code == 0
    assert "1 of 4 jobs to run" in again.out
    changed = [path.parent.name for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp]
    assert changed == [lost.name]
    assert (lost / "job.log").read_text().count("epoch") == 5  # four, and then the last one only
    assert rows(done.folder) == table


def test_every_attempt_that_fails_is_told(sweep, tmp_path):
    (tmp_path / "break-0.25").write_text("raise")
    done = sweep("task.reconstruction_weight=0.1,0.25", "hydra.launcher.retries=1")
    assert done.code == 1
    assert "job reconstruction_weight=0.25 failed, and runs again: ValueError: no luck today" in done.err
    assert "job reconstruction_weight=0.25 failed 2 times: ValueError: no luck today" in done.err


def test_jobs_of_another_launcher_are_told_and_tabulated_as_they_end(sweep, monkeypatch):
    monkeypatch.setattr(summary, "LOOK", 0.02)
    tabulated = []
    write = tables.write
    monkeypatch.setattr(summary.tables, "write", lambda results: (tabulated.append(results.done), write(results)))
    monkeypatch.setenv("TRIVIAL_SECONDS", "0.4")
    done = sweep(*GRID, "hydra/launcher=basic")
    assert done.code == 0, done.err
    told = [line.partition(" finished, ")[2] for line in done.out.splitlines() if " finished, " in line]
    names = [f"reconstruction_weight={weight},seed={seed}" for seed in (1, 2) for weight in (0.1, 0.25)]
    assert told == [f"{i} of 4: {name}" for i, name in enumerate(names, 1)]
    assert 1 <= tabulated[0] < 4  # before all had ended
    assert tabulated[-1] == 4
    assert rows(done.folder)[0]["finished"] == "2"


def test_plots_are_drawn_while_a_sweep_runs(sweep, monkeypatch):
    monkeypatch.setattr(summary, "FIRST", 0.0)
    drawn = []
    aside = summary.Pool.aside
    monkeypatch.setattr(
        summary.Pool, "aside", lambda self, job: (drawn.append(len(jobs_of(job.log.parent))), aside(self, job))[1]
    )
    done = sweep(*GRID)
    assert done.code == 0, done.err
    assert 1 <= drawn[0] < 4
    assert drawn[-1] == 4
    assert (done.folder / "index.html").exists()
    assert not (done.folder / "summary.log").exists()


def test_no_drawing_goes_on_where_a_sweep_is_broken_off(sweep, monkeypatch, tmp_path):
    monkeypatch.setattr(summary, "FIRST", 0.0)
    monkeypatch.setattr(summary, "draw", trivial.draw_slowly)
    begun = []

    def interrupt(self, outcome):
        while not begun:
            begun.extend(path.read_text() for path in tmp_path.glob("sweep/drawing"))
            time.sleep(0.02)
        raise KeyboardInterrupt

    ended = display.Display.ended
    monkeypatch.setattr(
        display.Display,
        "ended",
        lambda self, outcome: interrupt(self, outcome) if self.done else ended(self, outcome),
    )
    started = time.monotonic()
    done = sweep(*GRID)
    assert done.code == 130
    assert time.monotonic() - started < 30
    assert not alive(int(begun[0]))
    assert not (done.folder / "summary.log").exists()


def test_through_submitit(sweep, tmp_path, monkeypatch):
    """The launcher of the SLURM queue, with its executor for one machine."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(Path.cwd())]))
    (tmp_path / "break-0.25").write_text("raise")
    arguments = *GRID, "hydra/launcher=submitit_local", "hydra.launcher.submitit_folder=${hydra.sweep.dir}/.submitit/%j"
    first = sweep(*arguments)
    assert first.code == 1
    assert "no luck today" in first.err
    assert len(jobs_of(first.folder)) == 2
    (tmp_path / "break-0.25").unlink()
    again = sweep(*arguments)
    assert again.code == 0, again.err
    assert "2 of 4 jobs to run" in again.out
    # by hand: (0.25 - 0.3)^2 + 0.01 * {1, 2}
    assert float(rows(again.folder)[1]["val/loss"]) == pytest.approx(0.0175)
    assert all("process " + str(os.getpid()) not in path.read_text() for path in first.folder.glob(".submitit/*/*.out"))


def test_whether_a_checkpoint_fits_is_asked_for_every_size_of_the_model():
    def kinds(*said):
        return {
            checking._kind(compose(["experiment=cnn_lstm", f"model.encoder.latent_dim={d}", *said])) for d in (7, 9)
        }

    assert len(kinds()) == 1
    assert len(kinds("pretrained.checkpoint=x.ckpt")) == 2


def test_a_refused_sweep_leaves_no_folder(sweep, tmp_path):
    done = sweep(f"output_dir={tmp_path / 'new'}", "sweep=base", "sweep.objective=val/nothing", "seed=1,2", folder=None)
    assert done.code == 1
    assert not (tmp_path / "new").exists()


def test_more_points_extend_a_sweep_fewer_are_refused(sweep):
    assert sweep("task.reconstruction_weight=0.1,0.25").code == 0
    more = sweep("task.reconstruction_weight=0.1,0.25,0.5")
    assert more.code == 0
    assert "grows by 1 points" in more.out
    fewer = sweep("task.reconstruction_weight=0.25,0.5")
    assert fewer.code == 1
    assert "points no longer in the sweep: reconstruction_weight=0.1" in fewer.err


def test_another_definition_is_refused_with_the_difference(sweep):
    assert sweep("seed=1,2").code == 0
    other = sweep("seed=1,2", "model.latent_dim=7")
    assert other.code == 1
    assert "another sweep:\n  model.latent_dim: not said there, 7 now\nChoose" in other.err
    varied = "  model.latent_dim: not said there, varies (3, 4) now\n  seed: varies (1, 2) there, not said now\nChoose"
    assert varied in sweep("model.latent_dim=3,4").err
    wrong = sweep("model.latent_dim=3,0", "fresh=true")
    assert wrong.code == 1
    assert jobs_of(wrong.folder) == ["seed=1", "seed=2"]  # nothing is deleted for a sweep that cannot run
    assert "fresh=soon: must be true or false" in sweep("model.latent_dim=3,4", "fresh=soon").err
    over = sweep("model.latent_dim=3,4", "fresh=True")
    assert over.code == 0, over.err
    assert jobs_of(over.folder) == ["latent_dim=3", "latent_dim=4"]


def test_fresh_deletes_nothing_that_is_no_sweep(sweep, tmp_path):
    thesis = tmp_path / "sweep" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    refused = sweep("seed=1,2", "fresh=true")
    assert refused.code == 1
    assert "fresh=true would delete what is there, but it holds no sweep.yaml" in refused.err
    assert thesis.read_text() == "years of work"


def test_a_refused_sweep_leaves_no_definition(sweep):
    assert sweep("model.latent_dim=3,0").code == 1
    mended = sweep("model.latent_dim=3,4")
    assert mended.code == 0, mended.err


def test_a_sign_and_the_order_of_words_make_names_and_sweeps(sweep):
    both = sweep("task.reconstruction_weight=0.5", "model.latent_dim=3", "optimizer.lr=[-1],[1]")
    assert both.code == 1
    assert "2 of 2 jobs cannot run" in both.err  # none was taken for the other
    assert sweep("task.reconstruction_weight=0.5", "model.latent_dim=3", "seed=1,2").code == 0
    assert "0 of 2 jobs to run" in sweep("seed=1,2", "model.latent_dim=3", "task.reconstruction_weight=0.5").out


def test_where_things_lie_makes_no_other_sweep(sweep):
    assert sweep("seed=1,2").code == 0
    again = sweep("seed=1,2,3", "analysis=none", "trainer=cpu", "data.cache=/tmp/elsewhere")
    assert again.code == 0, again.err
    assert "1 of 3 jobs to run" in again.out
    assert Definition.load(again.folder).command == ["experiment=joint", "seed=1,2,3", "trainer=cpu"]


def test_every_mistake_is_found_before_the_first_job(sweep):
    done = sweep("task.reconstruction_weight=0.1,1.5,nonsense", "model.latent_dim=0,3")
    assert done.code == 1
    assert "5 of 6 jobs cannot run; none was started" in done.err
    for problem in ("model.latent_dim=0: must be an integer at least 1", "task.reconstruction_weight=1.5", "nonsense"):
        assert problem in done.err
    assert jobs_of(done.folder) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.latent_dim=3"], "nothing varies"),
        (["model.latent_dmi=3,4"], "latent_dmi"),
        (["sweep=nothing"], "nothing"),
        (["model.latent_dim=3,4", "objective=val/beauty"], "objective=val/beauty: not logged"),
        (["model.latent_dim=3,4", "sweep=base", "sweep.objective=val/beauty"], "objective=val/beauty: not logged"),
        (
            ["model.latent_dim=3,4", "sweep=base", "sweep.metrics=[test/mze]"],
            "sweep.metrics=test/mze: no job logs it; did you mean 'test/mse'?; allowed: val/loss, ",
        ),
        (["model.latent_dim=3,4", "hydra.launcher.devices=[17]"], "no GPU 17 here"),
        (
            ["sweep=base", "model.latent_dim=3,4", "sweep.direction=max"],
            "sweep.direction=max: must be one of minimize, maximize or null",
        ),
        (
            ["experiment=joint", "model=autoencoder", "model.latent_dim=3,4,5"],
            "3 of 3 jobs cannot run; none was started",
        ),
        (["experiment=joint", "model=joint,autoencoder"], "model=autoencoder: task: Joint learns from logits, Auto"),
        (
            ["sweep=base", "model.latent_dim=1,2", "sweep.prune=true"],
            "sweep.prune=true: sweep.method=grid stops no trial",
        ),
        (
            ["sweep=base", "sweep.zip=[{seed:[1,2],model.latent_dim:[3,4]}]", "seed=5,6"],
            "seed: changes together with model.latent_dim (sweep.zip); say all of them",
        ),
        (["sweep=base", "sweep.zip={seed:[1,2]}"], "sweep.zip={seed:[1,2]}: "),
        (["sweep=loss_weight", "sweep.sampler_seed=a"], "sweep.sampler_seed=a: must be an integer"),
        (["sweep=loss_weight", "sweep.params=null"], "sweep.params=null: must be a mapping"),
        (["sweep=loss_weight", "sweep.trials=3"], "sweep.trials=3: a grid runs all of its points"),
        (["model.latent_dim=3,4", "hydra.launcher.slots_per_device=0"], "slots_per_device=0"),
        (["model.latent_dim=3,4", "hydra.launcher.devices=17"], "no GPU 17 here"),
        (["model.latent_dim=3,4", "hydra.launcher.timeout=1h"], "hydra.launcher.timeout=1h: must be a number or null"),
        (["model.latent_dim=interval(3,4)"], "sweep.method=random"),
        (["model.latent_dim=3,4", "trainer.strategy=ddp"], "trainer.strategy=ddp"),
    ],
)
def test_mistakes_have_one_message(sweep, arguments, message):
    done = sweep(*arguments)
    assert done.code == 1
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_column_that_some_jobs_fill_is_one_of_the_table(sweep):
    columns = ["sweep=base", "sweep.metrics=[test/reconstruction,test/weight]"]
    assert sweep("task.reconstruction_weight=0.1,dynamic", *columns).code == 0
    assert "test/weight: no job logs it" in sweep("seed=1,2", *columns, folder=None).err
    wrong = sweep("task.reconstruction_weight=0.1,dynamic", "sweep=base", "sweep.metrics=[test/acuracy]")
    assert "did you mean 'test/accuracy'?; allowed: val/loss, test/loss, test/accuracy, test/constant" in wrong.err


def test_a_cluster_gets_all_jobs_at_once_and_says_itself_what_devices_it_has(sweep, monkeypatch):
    given = []

    def launch(self, overrides, first):
        given.append(overrides)
        return SlotLauncher.launch(self, overrides, first)

    cluster = type("Cluster", (SlotLauncher,), {"__module__": launcher.__name__, "launch": launch})
    target = f"{launcher.__name__}.Cluster"
    monkeypatch.setattr(launcher, "Cluster", cluster, raising=False)
    monkeypatch.setitem(Plugins.instance().class_name_to_class, target, cluster)
    monkeypatch.setattr(sweeper, "SlotLauncher", type("Other", (), {}))  # so that it is not taken for this machine's
    refused = sweep("model.latent_dim=3,4", "trainer.accelerator=cuda")
    assert "trainer.accelerator=cuda: there is none on this machine" in refused.err
    done = sweep(
        f"model.latent_dim={','.join(map(str, range(2, 22)))}",
        "trainer.accelerator=cuda",
        f"hydra.launcher._target_={target}",
    )
    assert (done.code, [len(jobs) for jobs in given]) == (0, [20]), done.err
    here = Path.cwd()
    assert f"output_dir='{here}/outputs'" in given[0][0], "a node does not start where this process does"


def test_a_sweep_over_experiments_is_not_named_by_the_default_one():
    made, given = sweeper.PointSweeper(), Settings(objective="val/mse", direction="minimize")
    made.config, made.fixed = OmegaConf.create({"hydra": {"runtime": {"choices": {"experiment": "demo"}}}}), {}
    dimensions = list(points.parse(["experiment=convgru,simvp", "seed=1,2"])[1].values())
    assert made._define(given, dimensions, []).name == "experiment,seed"
    assert made._define(given, dimensions[1:], []).name == "demo-seed"


def test_experiments_are_judged_by_what_they_have_in_common():
    judge = sweeper.PointSweeper()
    judge.config, judge.composer = compose(["experiment=joint"]), compose
    ways = {
        ("cnn_classifier", "embedding_classifier"): ("val/accuracy", "maximize"),
        ("autoencoder", "joint"): ("val/loss", "minimize"),
        (): ("val/loss", "minimize"),
    }
    for experiments, expected in ways.items():
        assert judge._judged_by(Settings(), experiments) == expected
    with pytest.raises(UserError, match=r"cnn_classifier by val/accuracy \(maximize\), joint by val/loss"):
        judge._judged_by(Settings(), ["cnn_classifier", "joint"])
    assert judge._judged_by(Settings(objective="val/mse"), ["cnn_classifier", "joint"]) == ("val/mse", "minimize")


def test_failed_jobs_are_told_and_run_again(sweep, tmp_path):
    for weight, how in (("0.1", "raise"), ("0.25", "exit"), ("0.5", "kill")):
        (tmp_path / f"break-{weight}").write_text(how)
    done = sweep("task.reconstruction_weight=0.1,0.25,0.5,0.6")
    assert done.code == 1
    assert "3 of 4 jobs are not finished" in done.err
    assert jobs_of(done.folder) == ["reconstruction_weight=0.6"]
    told = {"0.1": "ValueError: no luck today", "0.25": "exited with code 7", "0.5": "killed by SIGKILL"}
    for weight, message in told.items():
        assert f"job reconstruction_weight={weight} failed: {message}" in done.err
        assert f"all of it: {done.folder}/reconstruction_weight={weight}/job.log" in done.err
        (tmp_path / f"break-{weight}").unlink()
    assert "in _break" in done.err  # the last lines of the log
    again = sweep("task.reconstruction_weight=0.1,0.25,0.5,0.6")
    assert again.code == 0
    assert "3 of 4 jobs to run" in again.out


def test_collapsed_runs_are_marked_counted_and_left_out(sweep):
    done = sweep("task.reconstruction_weight=0.5,0.75,0.9")
    assert done.code == 0
    states = {row["job"]: row["state"] for row in rows(done.folder, "runs.csv")}
    assert states["reconstruction_weight=0.75"] == "collapsed"
    assert "1 of 3 runs collapsed" in done.out
    assert rows(done.folder)[1]["val/loss"] == ""
    assert "<code>reconstruction_weight=0.75</code>: collapsed" in (done.folder / "index.html").read_text()


def test_two_sweeps_in_one_folder(sweep, tmp_path):
    with start(tmp_path, *GRID, seconds=20) as first:
        assert wait_for(lambda: (tmp_path / "sweep" / ".holder").exists())
        second = sweep(*GRID)
        assert second.code == 1
        assert f"process {first.pid} on" in second.err
        assert "is running this sweep already" in second.err


def test_whatever_is_killed_the_table_is_that_of_an_undisturbed_sweep(sweep, tmp_path):
    points = ["task.reconstruction_weight=0.1,0.2,0.4,0.5", "seed=1,2"]
    undisturbed = sweep(*points, folder=tmp_path / "undisturbed")
    assert undisturbed.code == 0
    generator = random.Random(0)
    with start(tmp_path, *points, seconds=1.5) as parent:
        killed = set()
        while len(killed) < 4 or not jobs_of(tmp_path / "sweep"):
            time.sleep(generator.uniform(0.1, 0.6))
            assert parent.poll() is None  # the four that are left take seconds
            running = [pid for pid in pids(tmp_path / "sweep") if alive(pid)]
            if running and len(killed) < 4:
                victim = generator.choice(running)
                os.kill(victim, signal.SIGKILL)
                killed.add(victim)
        left = pids(tmp_path / "sweep")
        parent.kill()
        parent.wait()
        assert wait_for(lambda: not any(map(alive, left)))
    unfinished = 8 - len(jobs_of(tmp_path / "sweep"))
    assert unfinished
    resumed = sweep(*points)
    assert resumed.code == 0, resumed.err
    assert f"{unfinished} of 8 jobs to run" in resumed.out
    for name in ("table.csv", "runs.csv", "best.yaml"):
        old, new = ((folder / name).read_text() for folder in (undisturbed.folder, resumed.folder))
        assert new == old


class start:
    """A sweep in a process of its own, ended at the latest with the block."""

    def __init__(self, tmp_path, *arguments, seconds):
        script = str(Path(__file__).with_name("trivial.py"))
        folder = f"hydra.sweep.dir={tmp_path / 'sweep'}"
        self.process = subprocess.Popen(
            [sys.executable, script, "experiment=joint", folder, *arguments],
            env={**os.environ, "TRIVIAL_SECONDS": str(seconds)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self):
        return self.process

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()


def pids(folder):
    """Processes of the jobs that have started, as their logs tell."""
    return [int(line.split()[-1]) for log in folder.glob("*/job.log") for line in log.read_text().splitlines()]


def wait_for(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
