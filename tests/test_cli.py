"""The command line as a user meets it: help, settings, and one clear message for each mistake."""

import os
import subprocess
import sys

import pytest
from hydra.errors import ConfigCompositionException

from healing_mnist import build, cli, runs
from healing_mnist.config import CONF, compose

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def ask(arguments, cwd, **options):
    return subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, timeout=120, **options)


@pytest.fixture
def message(capsys, tmp_path):
    """What a training with these overrides prints to stderr when it is refused with exit code 1."""

    def of(*overrides):
        with pytest.raises(SystemExit) as stop:
            cli.guarded(lambda: runs.train(compose([f"output_dir={tmp_path}/out", *overrides])))
        assert stop.value.code == 1
        assert not (tmp_path / "out").exists(), "something was left behind"
        return capsys.readouterr().err

    return of


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.latent_dim=0"], "model.latent_dim=0: must be an integer at least 1"),
        (["model.latent_dim=many"], "model.latent_dim=many: must be an integer"),
        (
            ["task.reconstruction_weight=1.5"],
            "task.reconstruction_weight=1.5: must be a number in [0, 1] or one of dynamic",
        ),
        (["data.rotation_ratio=-0.1"], "data.rotation_ratio=-0.1: must be a number in [0, 1]"),
        (["data.square_size=40"], "data.square_size=40"),
        (["data.source=mnits"], "did you mean 'mnist'?"),
        (["data.source=mnist", "data.root=/not/there"], "data.root=/not/there"),
        (["objective=val/acuracy"], "did you mean 'val/accuracy'?"),
        (["direction=up"], "direction=up: must be one of minimize, maximize"),
        (["trainer.precision=64-true"], "trainer.precision=64-true: must be one of 32-true, bf16-mixed, 16-mixed, for"),
        (
            ["trainer.precision=bf15"],
            "1 problem in the settings:\n  trainer.precision=bf15: must be one of 32-true, bf16",
        ),
        (["trainer.max_epochs=-3"], "trainer.max_epochs=-3: must be an integer at least 1"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0: must be an integer at least 1"),
        (["optimizer.lr=-1"], "optimizer.lr=-1: must be a number at least 0"),
        (["optimizer.weight_decay=-1"], "optimizer.weight_decay=-1: must be a number at least 0"),
        (["optimizer.betas=[2,0.9]"], "optimizer.betas=[2, 0.9]: must be a list, each a number in [0, 1)"),
        (["trainer.devices=3"], "trainer.devices=3: on a CPU each is a process; 1 to 2 on this machine"),
        (["trainer=ddp", "trainer.accelerator=cpu"], "trainer.devices=-1: on a CPU each is a process; 1 to 2"),
        (["model.channels=[]"], "model.channels=[]: at least one layer"),
        (["experiment=cifar_classifier_lstm", "model.hidden=[]"], "model.hidden=[]: must be a list with at least one"),
        (["experiment=cifar_classifier_darknet", "model.channels=[1]"], "must be a list, each an integer at least 2"),
        (["data.source=null"], "data.source=None: unknown source"),
        (["callbacks.checkpoint.monitor=val/foo"], "callbacks.checkpoint.monitor=val/foo: not logged by Joint"),
        (["scheduler=plateau", "scheduler.monitor=val/foo"], "scheduler.monitor=val/foo: not logged by Joint"),
        (["scheduler.warmup=0"], "scheduler.warmup=0: must be a number in (0, 1)"),
        (["scheduler=plateau", "scheduler.factor=1"], "scheduler.factor=1: must be a number in (0, 1)"),
        (["trainer.check_val_every_n_epoch=0"], "trainer.check_val_every_n_epoch=0: must be an integer at least 1"),
        (["trainer.strategy=foo"], "trainer.strategy=foo: must be one of auto, "),
        (["trainer.accelerator=cpu", "trainer.devices=[0,1]"], "trainer.devices=[0, 1]: a CPU has no numbers"),
        (["trainer.limit_train_batches=abc"], "trainer.limit_train_batches=abc: must be"),
        (["trainer.limit_train_batches=2.5"], "trainer.limit_train_batches=2.5: must be a share in (0, 1]"),
        (
            ["trainer.limit_train_batches=0"],
            "trainer.limit_train_batches=0: must be a share in (0, 1], or a whole number",
        ),
        (
            ["trainer.limit_test_batches=-1"],
            "trainer.limit_test_batches=-1: must be a share in [0, 1], or a whole number",
        ),
        (["trainer.strategy=ddp_spawn"], "trainer.strategy=ddp_spawn: its processes would keep what they learn"),
        (
            ["objective=val/accuracy"],
            "direction=minimize: would choose the worst epoch; val/accuracy asks for maximize",
        ),
        (["name=other"], "name=other: is the experiment's own"),
        (["experiment=cnn_lstm", "model=convlstm"], "the earlier stage of this experiment does not fit: "),
        (
            ["experiment=cnn_lstm", "model=row_autoencoder"],
            "it finds nothing for its model.latent_dim; pretrained=none",
        ),
        (["experiment=simvp", "data=images"], "data=HealingImages: must be data of sequences, with data.window or"),
        (
            ["experiment=simvp", "data=images", "model.window=4"],
            "model.horizon: takes data.horizon, which is not there; say model.horizon=..., or choose another data",
        ),
        (["seed=5000000000"], "seed=5000000000: must be an integer in [0, 4294967295]"),
        (["experiment=embedding_classifier", "model.encoder.latent_dim=7"], "latent_dim=7: not model.latent_dim=5"),
        (["data=n6"], "AutoregressiveDigits (experiment=demo sets it, which is made for another data)"),
        (["fresh=no"], "fresh=no: must be true or false"),
        (["sweep=loss_weight"], "makes many runs of one; say `python sweep.py sweep="),
        (["trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1"], "bf16-mixed; add optimizer.fused=false"),
        (["+optimizer.foreach=true"], "optimizer: `fused` and `foreach`"),
        (["output_dir=null"], "output_dir=null: must be a text"),
        (["experiment=convlstm", "data.rotation=5"], "data.rotation=5: must be a group of settings"),
        (["experiment=cifar_autoencoder_cnn", "data.blur=abc"], "data.blur=abc: must be a group of settings or null"),
        (["callbacks.checkpoint=3"], "callbacks.checkpoint=3: must be a group of settings with a _target_, or null"),
        (["+analysis.mine.rows=3"], "analysis.mine={'rows': 3}: must be a group of settings with a _target_, or null"),
        (["seed=-1"], "seed=-1: must be an integer in [0, 4294967295]"),
        (["trainer=gpu"], "trainer.accelerator=gpu: there is no GPU here"),
        (
            ["trainer=cpu", "trainer.devices=two"],
            "trainer.devices=two: must be how many, a list of their numbers, or auto",
        ),
        (["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=two"], "trainer.devices=two: must be how many"),
        (["trainer.accelerator=warp"], "trainer.accelerator=warp: must be one of"),
        (["task.loss=l3"], "task.loss=l3: must be one of mse, l1, ssim, bce"),
        (["optimizer.lr=fast"], "optimizer.lr=fast"),
        (["data.fold=3", "data.folds=2"], "data.fold=3"),
    ],
)
def test_a_mistake_is_named_with_the_value_and_what_is_allowed(message, overrides, expected, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    found = message(*overrides)
    assert expected in found
    assert "Traceback" not in found


def test_all_mistakes_are_named_at_once(message):
    found = message("model.latent_dim=0", "data.square_ratio=2", "trainer.max_epochs=ten")
    assert "3 problems in the settings" in found
    assert all(key in found for key in ("model.latent_dim=0", "data.square_ratio=2", "trainer.max_epochs=ten"))


def test_what_constructors_find_is_named_together(message):
    found = message("experiment=convlstm", "data.window=20", "model.kernel_size=4")
    assert "2 problems in the settings" in found
    assert "data.window=20: longer than a sequence" in found
    assert "model.kernel_size=4: must be odd" in found
    found = message("experiment=convlstm", "data.window=20", "model.layers=0")
    assert "data.window=20: longer than a sequence" in found
    assert "model.layers=0: must be" in found
    found = message("experiment=convlstm", "data.source=mnist", "data.root=/nonexistent", "objective=val/nothing")
    assert "data.root=/nonexistent: no such folder" in found
    assert "objective=val/nothing: not logged by" in found


def test_a_setting_of_sweeps_alone_is_told_as_one(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "sweep.metrics=[test/mse]", "seed=1,2"])
    with pytest.raises(SystemExit):
        cli.main(lambda cfg: None, "train")
    assert "unknown setting 'sweep': only a sweep has it; name one, or add sweep=base" in capsys.readouterr().err


def test_a_value_that_cannot_be_read_gets_advice_on_quoting(capsys, monkeypatch):
    for value in ("/tmp/a b ü", "a(b", "a'b"):
        monkeypatch.setattr(sys, "argv", ["train.py", f"output_dir={value}"])
        with pytest.raises(SystemExit) as stop:
            cli.main(lambda cfg: None, "train")
        assert stop.value.code == 1
        found = capsys.readouterr().err
        advice = found.partition('Quote such a value twice: "')[2].strip()[:-1]
        assert "Lexer" not in found
        assert compose([advice]).output_dir == value
    monkeypatch.setattr(sys, "argv", ["train.py", "foo bar"])
    with pytest.raises(SystemExit):
        cli.main(lambda cfg: None, "train")
    assert "Quote" not in capsys.readouterr().err


def test_unwritable_outputs_are_named(capsys, tmp_path, fast):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SystemExit) as stop:
        cli.guarded(lambda: runs.train(compose([f"output_dir={tmp_path}/file", *fast])))
    assert stop.value.code == 1
    assert f"{tmp_path}/file" in capsys.readouterr().err


def test_a_full_disk_leaves_no_half_written_file(capsys, tmp_path, fast, monkeypatch):
    import errno
    import os

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit) as stop:
        cli.guarded(lambda: runs.train(compose([f"output_dir={tmp_path}/out", *fast])))
    assert stop.value.code == 1
    assert "No space left on device" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == [".lock"]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("model.latnt_dim=3", "unknown setting 'model.latnt_dim'; did you mean 'model.latent_dim'?"),
        ("latent_dim=3", "did you mean 'model.latent_dim'?"),
        ("data/sequence=const_grow", "did you mean 'data/sequences'?"),
        ("experiment=jiont", "did you mean 'joint'?"),
        ("model.latent_dim=[1", "model.latent_dim=[1"),
        ("run_dir=runs/a=1", "run_dir='runs/a=1'"),
        ("callbacks=null", "callbacks=null: there is none. Allowed: collapse, default"),
        ("data/sequences=var_grow", "data/sequences: only with data=sequences, or an experiment that has it"),
        (
            "experiment=cnn_lstm data=n6",
            "it takes data.limit from it, and there is none; pretrained=none leaves it out",
        ),
        ("task=5", "task=5: there is none. Allowed: classification, joint"),
        ("data.root=null pretrained=null", "Error: pretrained=null: there is none; use pretrained=none. Allowed: "),
    ],
)
def test_an_override_that_cannot_be_is_explained_at_once(argument, expected, command, tmp_path):
    done = ask(command("train.py", *argument.split()), tmp_path)
    assert done.returncode == 1
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) < 45
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "overrides", "expected"),
    [
        (
            "task.reconstruction_weight",
            ["sweep=latent_dim", "experiment=convlstm"],
            " (sweep=latent_dim sets it, which is made for another experiment)",
        ),
        ("model.latent_dims", ["sweep=latent_dim"], "; did you mean 'model.latent_dim'? (To add"),
        ("sweep.trails", ["sweep=latent_dim"], "; did you mean 'sweep.trials'? (To add"),
        ("zzz", [], ". (To add a setting that is not there, write +zzz=...)"),
    ],
)
def test_an_unknown_setting_of_a_sweep_is_explained(key, overrides, expected, monkeypatch):
    monkeypatch.setattr("sys.argv", ["sweep.py", *overrides])
    with pytest.raises(ConfigCompositionException) as error:
        compose([*overrides, f"{key}=1"])
    assert cli.explain(error.value).startswith(f"unknown setting '{key}'{expected}")


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--help"], "latent_dim"),
        (["--cfg", "job"], "name: demo"),
        (["--info", "defaults-tree"], "experiment: demo"),
    ],
)
def test_questions_are_answered_without_importing_torch(arguments, answer, command, tmp_path):
    code = (
        "import runpy, sys, atexit\n"
        "heavy = lambda: {'torch', 'lightning'} & set(sys.modules)\n"
        "atexit.register(lambda: print('HEAVY' if heavy() else 'LIGHT', file=sys.stderr))\n"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    python, script, *rest = command("train.py", *arguments)
    done = ask([python, "-c", code, script, *rest], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "LIGHT" in done.stderr
    assert answer in done.stdout


def test_tab_completion_offers_experiments(command, tmp_path):
    line = "train.py experiment=jo"
    environment = os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    done = ask(command("train.py", "-sc", "query=bash"), tmp_path, env=environment)
    assert "experiment=joint" in done.stdout + done.stderr


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_says_its_name_and_its_command(name):
    assert compose([f"experiment={name}"]).name in (name, None)
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    assert "#   python " in text


@pytest.mark.parametrize("path", sorted((CONF / "best").glob("*.yaml")), ids=lambda path: path.stem)
def test_best_settings_fit_the_command_in_their_header(path):
    text = path.read_text()
    command = next(line for line in text.splitlines() if line.startswith("#   python train.py"))
    config = compose(command.split()[3:])
    build.check(config)
    assert f"best={path.stem}" in command
    assert "reached" in text


@pytest.mark.parametrize("debug", ["fdr", "default", "overfit"])
def test_debug_runs(debug, train, fast):
    epochs = ["trainer.max_epochs=1"] if debug == "overfit" else []
    small = [o for o in fast if not o.startswith("trainer.max_epochs")]
    assert train("experiment=joint", f"debug={debug}", *small, *epochs).metrics["test/mse"] > 0


def test_a_profiled_run_says_where_its_time_went(train, fast):
    folder = train("experiment=joint", "debug=profile", *fast).folder
    assert "run_training_batch" in (folder / "fit-profile.txt").read_text()


def test_scripts_start_in_a_folder_that_is_not_the_repository(command, tmp_path):
    done = ask(command("evaluate.py", "--help"), tmp_path)
    assert done.returncode == 0
    assert "run=FOLDER" in done.stdout
    done = ask(command("evaluate.py"), tmp_path)
    assert done.returncode == 1
    assert "say which run to measure" in done.stderr


def test_help_of_a_sweep_lists_what_a_sweep_and_its_launcher_may_set(command, tmp_path):
    done = ask(command("sweep.py", "--help"), tmp_path)
    assert done.returncode == 0, done.stderr
    for line in ("  trials: 50", "slots_per_device: null #", "  hydra/launcher: ray, slots, submitit_slurm"):
        assert line in done.stdout
    wrong = ask(command("sweep.py", "--help", "hydra/launcher=rai"), tmp_path)
    assert wrong.returncode == 1
    assert "did you mean 'ray'?" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    study = ask(command("sweep.py", "study=reports", "--help"), tmp_path)
    assert study.returncode == 0
    assert study.stdout.startswith("Many runs of train.py")


def test_who_set_what_its_group_does_not_know_is_named(command, tmp_path):
    done = ask(command("train.py", "experiment=convlstm", "best=one_layer"), tmp_path)
    assert "model.num_layers=1: unknown setting of" in done.stderr
    assert "(best=one_layer sets it, which is made for another model)" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_summary_takes_nothing_else(command, tmp_path):
    done = ask(command("sweep.py", f"summarize={tmp_path}", "sweep.metrics=[test/mse]"), tmp_path)
    assert done.returncode == 1
    assert "sweep.metrics=[test/mse]: summarize= takes nothing else" in done.stderr
