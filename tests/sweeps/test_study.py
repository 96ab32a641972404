"""Studies: what is run, and a document whose numbers are worked out by hand from planted run folders."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image

from healing_mnist.checks import UserError
from healing_mnist.config import CONF, compose, evaluation_name, plain
from healing_mnist.sweeps import document, study
from healing_mnist.sweeps.definition import Definition
from healing_mnist.sweeps.results import Results

PARTS = [
    {
        "name": "weights",
        "title": "Weights",
        "sweep": ["sweep=weights", "seed=1,2"],
        "data": "mnist",
        "says": "0.5 it is.",
    },
    {"name": "classes", "title": "Classes", "of": "weights", "where": {"task.w": 0.5}},
    {"name": "again", "title": "Again", "of": "weights", "evaluate": ["data.angles=[10,20]"], "metrics": ["test/mse"]},
]


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A study of three parts in a conf of its own, and two weights with two seeds in its folder."""
    (tmp_path / "conf" / "study").mkdir(parents=True)
    text = {"document": str(tmp_path / "docs" / "results.md"), "title": "T", "intro": "I", "small": ["seed=1"]}
    (tmp_path / "conf" / "study" / "s.yaml").write_text(yaml.safe_dump(text | {"parts": PARTS}))
    monkeypatch.setattr(study, "CONF", tmp_path / "conf")
    folder = tmp_path / "outputs" / "results" / "weights"
    runs = {("0.5", "1"): 0.10, ("0.5", "2"): 0.14, ("1", "1"): 0.3, ("1", "2"): 0.5}
    for (weight, seed), mse in runs.items():
        place = folder / f"w={weight},seed={seed}"
        again = place / "evaluations" / "angles=10-20"
        again.mkdir(parents=True)
        (place / "figures").mkdir()
        (place / "figures" / "accuracy.csv").write_text(f"class,split,accuracy\n0,a,{mse}\n0,b,9\n1.0,a,{2 * mse}\n")
        environment = {
            "seconds": 60 * int(seed),
            "packages": {"torch": "2.13"},
            "machine": {"system": "Linux", "cpu": "Abacus", "threads": 1, "gpu": None},
        }
        (place / "environment.json").write_text(json.dumps(environment))
        for where, value in ((place, mse), (again, 10 * mse)):
            found = {"metrics": {"test/mse": value}, "best": {"epoch": 3, "val/mse": value}, "collapsed": False}
            (where / "metrics.json").write_text(json.dumps(found))
    points = {f"w={weight},seed={seed}": {"task.w": weight, "seed": seed} for weight, seed in runs}
    report = [{"task.w": 0.5, "test/mse": 0.04}]
    Definition("weights", "grid", "val/mse", "minimize", [], {"task.w": "", "seed": ""}, points, report=report).save(
        folder
    )
    (folder / "figures").mkdir()
    Image.new("RGB", (4, 4), "red").save(folder / "figures" / "plot.png")
    loaded = study.Study.load("s")
    return SimpleNamespace(
        study=loaded, setup=study.Setup(loaded, extra=[f"output_dir={tmp_path / 'outputs'}"]), at=tmp_path
    )


def rows(text):
    lines = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_a_section_gives_command_machine_table_and_report(planted):
    part = planted.study.part("weights")
    text = document.section(planted.setup, part, planted.setup.results(part))
    assert "`python sweep.py sweep=weights seed=1,2 data.source=mnist" in text
    assert "4 finished runs. Mean ± standard deviation over seeds 1, 2." in text
    assert "1.5 minutes a run (median) on 1 thread (Abacus), PyTorch 2.13; 6 in all." in text
    first, second = rows(text)
    assert (first["task.w"], first["test/mse"], first["test/mse (report)"]) == ("0.5", "0.12 ± 0.028", "0.04")
    assert (second["test/mse"], second["test/mse (report)"]) == ("0.4 ± 0.14", "")
    assert "**The report.** 0.5 it is." in text


def test_a_section_says_what_was_run_and_not_what_might_have_been(planted):
    part, folder = planted.study.part("weights"), planted.at / "outputs" / "results" / "weights"
    definition = Definition.load(folder)
    definition.command = ["sweep=weights", "seed=1,2", "data.source=mnist", "trainer=cpu", "data.limit=7"]
    definition.save(folder)
    text = document.section(planted.setup, part, planted.setup.results(part))
    assert "`python sweep.py sweep=weights seed=1,2 data.source=mnist trainer=cpu data.limit=7 hydra.sweep.dir=" in text
    assert "**Not as the study says, but with `data.limit=7`.**" in text


def test_evaluations_are_read_in_the_place_of_the_runs(planted):
    part = planted.study.part("again")
    text = document.section(planted.setup, part, planted.setup.results(part))
    assert [row["test/mse"] for row in rows(text)] == ["1.2 ± 0.28", "4 ± 1.4"]
    assert " Trained in 1.5 minutes a run (median)" in text  # the evaluations took another time
    assert "`python evaluate.py run=RUN 'data.angles=[10,20]'`" in text


def test_a_table_from_the_csv_of_each_run(planted):
    results = planted.setup.results(planted.study.part("classes"))
    assert len(results.runs) == 2  # only those of w = 0.5
    options = {"file": "figures/accuracy.csv", "row": "class", "values": ["accuracy"]}
    table = document.from_csv(results, **options, where={"split": "a"}, report={0: 0.9, 1: 0.8})
    assert table.head == ["class", "accuracy", "the report"]
    assert table.rows == [
        {"class": "0", "accuracy": "0.12 ± 0.028", "the report": "0.9"},
        {"class": "1", "accuracy": "0.24 ± 0.057", "the report": "0.8"},
    ]
    split = document.from_csv(results, **options, by={"split": ["a", "b"]}, rows=[0])
    assert split.rows == [{"class": "0", "a": "0.12 ± 0.028", "b": "9 ± 0"}]
    both = planted.setup.results(planted.study.part("weights"))  # a column for each setting where there are several
    split = document.from_csv(both, **options, by={"split": ["a"]}, rows=[0])
    assert split.rows == [{"class": "0", "0.5: a": "0.12 ± 0.028", "1: a": "0.4 ± 0.14"}]


def test_the_document_keeps_what_is_not_here(planted):
    path = planted.at / "docs" / "results.md"
    path.parent.mkdir()
    path.write_text("# Old\n\n<!-- part weights -->\nold\n\n<!-- part again -->\nkept\n")
    planted.study.parts[:] = [
        study.Part(**{**PARTS[0], "figures": {"Plot": "figures/*.png", "Again": "figures/plot.png"}}),
        *planted.study.parts[1:],
    ]
    document.write(planted.setup, [planted.study.part("weights")])
    text = path.read_text()
    found = document.sections(text)
    assert found["again"].strip() == "kept"
    assert "![Plot](figures/results/weights_plot.png)" in found["weights"]
    assert "![Again](figures/results/weights_plot_2.png)" in found["weights"]
    assert Image.open(path.parent / "figures/results/weights_plot.png").convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    assert "Not run yet: Classes." in text
    assert text.startswith("# T\n\nI\n")
    document.write(planted.setup, [planted.study.part("weights")])
    assert path.read_text() == text


def test_a_section_without_its_runs_keeps_its_numbers_with_new_words(planted):
    path = planted.at / "docs" / "results.md"
    path.parent.mkdir()
    old = "## Old\n\n`command`\n\n| a |\n|---|\n| 1 |\n\n**The report.** old\n\n![Plot](plot.png)"
    path.write_text(f"# T\n\n<!-- part classes -->\n{old}\n")
    part = study.Part(**{**PARTS[1], "says": "said", "remark": "why", "where": {"task.w": "no such"}})
    planted.study.parts[1] = part
    document.write(planted.setup, [part])
    words = "**The report.** said\n\n**Difference.** why"
    expected = f"## Classes\n\n`command`\n\n| a |\n|---|\n| 1 |\n\n{words}\n\n![Plot](plot.png)"
    assert document.sections(path.read_text())["classes"] == expected


def test_a_small_study_runs_less_and_elsewhere(planted):
    small = study.Setup(planted.study, small=True, roots={"mnist": "/there"})
    part = planted.study.part("weights")
    assert small.arguments(part) == ["sweep=weights", "seed=1"]
    assert small.places(part) == ["output_dir=outputs/small", "hydra.sweep.dir=outputs/small/results/weights"]
    assert small.document.as_posix() == "outputs/small/results.md"
    full = study.Setup(planted.study, roots={"mnist": "/there"})
    assert full.places(part)[0] == "data.root=/there"


def test_evaluations_keep_to_the_machine_and_the_data_that_were_said(planted):
    extra = ["trainer=cpu", "hydra.launcher.slots_per_device=3"]
    setup = study.Setup(planted.study, roots={"mnist": "/moved"}, extra=extra)
    assert setup.machine(planted.study.part("weights")) == ["data.root=/moved", "trainer.accelerator=cpu"]
    assert len(setup.slots(jobs=9)) == 3
    assert evaluation_name(["data.angles=[-30]", "data.root=/moved"]) == "evaluations/angles=-30"


def test_runs_that_are_found_are_experiments_as_they_are(tmp_path):
    for name, changes in {"seed=1": ["seed=1"], "seed=2": ["seed=2"], "wide": ["model.latent_dim=25"]}.items():
        place = tmp_path / "autoencoder" / name
        place.mkdir(parents=True)
        config = plain(compose(["experiment=autoencoder", "data.source=mnist", "data.root=/there", *changes]))
        (place / "config.yaml").write_text(yaml.safe_dump(config))
        metrics = {"test/mse": 0.2 if name == "wide" else 0.4}
        found = {"metrics": metrics, "best": {"val/loss": 1.0, "epoch": 1}, "collapsed": False}
        (place / "metrics.json").write_text(json.dumps(found))
    results = Results.found(tmp_path, "autoencoder*/*", {"data.source": "mnist"})
    assert sorted(results.runs) == ["autoencoder/seed=1", "autoencoder/seed=2"]
    assert results.settings()[0].mean("test/mse") == 0.4
    parts = (study.Part("found", "", runs="autoencoder*/*"), study.Part("again", "", of="found", evaluate=["a.b=1"]))
    setup = study.Setup(study.Study("s", tmp_path / "s.md", "", "", parts, []), extra=[f"output_dir={tmp_path}"])
    assert setup.results(parts[0]).count("finished") == 2
    assert setup.results(parts[1]).count("finished") == 0  # not measured again yet
    (tmp_path / "autoencoder" / "seed=2" / "evaluations" / "b=1").mkdir(parents=True)
    (tmp_path / "autoencoder" / "seed=2" / "evaluations" / "b=1" / "metrics.json").write_text(json.dumps(found))
    assert setup.results(parts[1]).settings()[0].mean("test/mse") == 0.2
    assert f"of the runs in `{tmp_path}/autoencoder*/*`" in document._command(setup, parts[1], results)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study=reprots"], "study=reprots: there is none; did you mean 'reports'"),
        (
            ["study=reports", "only=latent_din"],
            r"study=reports: there is no part 'latent_din'; did you mean 'latent_dim'\? Its parts: ",
        ),
        (["study=reports", "small=maybe"], "small=maybe: must be true or false"),
        (["study=reports", "losses"], "losses: a study takes KEY=VALUE only"),
        (["study=reports", "smal=true"], "smal=true: neither an option of a study nor a setting; did you mean 'small'"),
        (["study=reports", "~optimizer.fused"], "~optimizer.fused: a study takes KEY=VALUE only"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        study.run(arguments)


@pytest.mark.parametrize("said", ["mnist=/nope", "cifar10="])
def test_a_folder_that_is_not_there_is_named_before_anything_is_run(planted, said):
    with pytest.raises(UserError, match=f"^{said}: no such folder$"):
        study.run(["study=s", "run=false", said])
    assert not planted.study.document.exists()


def test_an_unknown_key_of_a_part_is_named(planted):
    path = planted.at / "conf" / "study" / "s.yaml"
    path.write_text(path.read_text().replace("evaluate:", "evalute:"))
    with pytest.raises(UserError, match="part again: unknown key evalute; did you mean 'evaluate'"):
        study.Study.load("s")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("of: weights", "of: weigths", "part .*: of=weigths: there is no part 'weigths'; did you mean 'weights'"),
        ("name: again", "name: classes", "more than one part is named classes"),
        ("intro:", "intor:", "unknown key intor; did you mean 'intro'.*, no intro; its keys are document, title"),
        ("parts:", "parts: [", "conf/study/s.yaml: while parsing"),
    ],
)
def test_mistakes_in_the_yaml_of_a_study_are_named(planted, old, new, message):
    path = planted.at / "conf" / "study" / "s.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        study.Study.load("s")


def test_the_reports_study_names_what_there_is():
    reports = study.Study.load("reports")
    names = [part.name for part in reports.parts]
    assert len(set(names)) == len(names)
    sweeps = {path.stem for path in (CONF / "sweep").glob("*.yaml")}
    for i, part in enumerate(reports.parts):
        assert (bool(part.sweep) + bool(part.of) + bool(part.runs)) == 1, part.name
        assert part.of is None or part.of in names[:i], part.name
        for argument in part.sweep:
            if argument.startswith("sweep="):
                assert argument.removeprefix("sweep=") in sweeps


def test_a_study_that_is_ended_ends_its_sweep():
    script = (
        "import subprocess, sys; from healing_mnist.sweeps import study; study.end_children_too();"
        "subprocess.run([sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(60)'])"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout.readline() == b"1\n"
    parent.terminate()
    assert parent.stdout.read() == b""  # nobody holds the other end any more
    assert parent.wait() == 143
