"""Tables of a sweep against numbers worked out by hand."""

import csv
import json

import numpy as np
import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from healing_mnist.checks import UserError
from healing_mnist.config import CONF
from healing_mnist.sweeps import plots, summary, tables
from healing_mnist.sweeps.definition import Definition, default_folder, job_name, only_one
from healing_mnist.sweeps.points import value_of
from healing_mnist.sweeps.results import Results, Run


@pytest.fixture
def results(tmp_path):
    """Two weights with two seeds each, one run collapsed, one missing."""
    points = {f"w={w},seed={s}": {"task.w": w, "seed": s} for w in ("0.5", "dynamic") for s in ("1", "2")}
    definition = Definition(
        name="weights_%",
        method="grid",
        objective="val/accuracy",
        direction="maximize",
        fixed=["experiment=joint"],
        varied={"task.w": "0.5, dynamic", "seed": "1, 2"},
        points=points,
        report=[{"task.w": 0.5, "test/mse": 0.04}, {"task.w": "dynamic", "test/mse": 0.026}],
    )
    definition.save(tmp_path)
    runs = {
        "w=0.5,seed=1": ({"test/mse": 0.10, "test/weight": 1.0}, 0.7, 3, False),
        "w=0.5,seed=2": ({"test/mse": 0.14, "test/weight": 1.0}, 0.9, 5, False),
        "w=dynamic,seed=1": ({"test/mse": 0.50, "test/weight": 1.0}, 0.99, 1, True),
    }
    for name, (metrics, accuracy, epoch, collapsed) in runs.items():
        best = {"epoch": epoch, "train/loss": 1.0, "val/accuracy": accuracy}
        (tmp_path / name).mkdir()
        found = {"metrics": metrics, "best": best, "objective": accuracy, "collapsed": collapsed}
        (tmp_path / name / "metrics.json").write_text(json.dumps(found))
    return Results.load(tmp_path)


def test_numbers_of_a_setting(results):
    first, second = tables.setting_rows(results)
    assert first["test/mse"] == pytest.approx(0.12)
    assert first["test/mse sd"] == pytest.approx(0.02 * 2**0.5)  # (0.02^2 + 0.02^2) / (2 - 1)
    assert first["val/accuracy"] == pytest.approx(0.8)
    assert first["test/mse (report)"] == 0.04
    assert "train/loss" not in first
    assert (second["finished"], second["collapsed"], second["unfinished"]) == (0, 1, 1)
    assert second["test/mse"] is None
    assert second["test/mse (report)"] == 0.026


def test_a_point_that_was_drawn_again_counts_once(results):
    for name, accuracy in (("w=0.5,seed=2", 0.7), ("w=dynamic,seed=1", 0.8)):
        run = results.runs[name]
        run.state, run.metrics["val/accuracy"] = "finished", accuracy
    again = results.runs["w=0.5,seed=2"]
    again.point = results.runs["w=0.5,seed=1"].point
    first, _ = results.settings()
    assert (len(first.runs), first.spread("val/accuracy")) == (1, None)
    assert results.best().point["task.w"] == "dynamic"  # 0.8 in one run, not 0.7 in two
    assert "3 finished runs." in tables.caption(results)
    assert "1 drew a point again, which counts once." in tables.caption(results)
    results.runs["w=0.5,seed=1"].state, again.state = "failed", "collapsed"
    assert results.settings()[0].runs == [again]


def test_one_damaged_file_does_not_stop_the_summary(results):
    for content in ("{", "null", '{"metrics": {}}'):
        (results.folder / "w=0.5,seed=1" / "metrics.json").write_text(content)
        run = Results.load(results.folder).runs["w=0.5,seed=1"]
        assert run.state == "failed"
        assert "metrics.json: damaged" in run.message
    (results.folder / "sweep.yaml").write_text("")
    with pytest.raises(UserError, match=r"sweep\.yaml: damaged"):
        Results.load(results.folder)


def test_what_all_runs_drew_alike_stands_in_the_command(results):
    for run in results.runs.values():
        run.point["model.layers"] = 3
    results.definition.fixed += ["output_dir='/some/where'"]
    assert "`python train.py experiment=joint model.layers=3`." in tables.caption(results)


def test_the_table_people_read(results):
    head, rows, best = tables.table(results)
    assert head[0] == "task.w"
    assert head.index("test/mse (report)") == head.index("test/mse") + 1
    assert rows[0]["test/mse"] == "0.12 ± 0.028"
    assert rows[0]["best epoch"] == "3 to 5"
    assert best == 0


def test_constant_columns_are_dropped(results):
    for run in results.runs.values():
        run.state = "finished"
        run.metrics |= {"test/weight": 1.0, "test/mse": 0.1, "val/accuracy": 0.5}
    results.runs["w=dynamic,seed=2"].metrics["test/mse"] = 0.3
    head = tables.table(results).head
    assert "test/mse" in head
    assert "val/accuracy" in head  # what settings are compared by, also where it decides nothing
    assert not {"test/weight", "collapsed", "unfinished"} & set(head)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123456, "0.1235"), (12345.6, "1.235e+04"), (10000.0, "10000"), (2e6, "2e+06"), (10000, "10000"), (None, "")],
)
def test_four_digits_of_what_is_not_whole(value, text):
    assert tables.shown(value) == text


def test_markdown_and_latex(results):
    text = tables.markdown(results)
    assert "1 of 4 runs collapsed" in text
    assert "1 of 4 runs not finished yet" in text
    assert "| **0.5** |" in text
    assert "| **0.12 ± 0.028** | 0.04 |" in text  # the report's figure did not win
    made = tables.latex(tables.table(results))
    assert r"\textbf{0.12 $\pm$ 0.028}" in made
    assert "textbf{0.04}" not in made
    assert made.count(r"\\") == 3
    assert tables._escaped("a_b & 5 %") == r"a\_b \& 5 \%"


def test_a_value_that_is_not_finite_counts_as_collapsed(tmp_path, results):
    path = results.folder / "w=0.5,seed=1" / "metrics.json"
    path.write_text(path.read_text().replace("0.7", "NaN"))
    assert Results.load(results.folder).runs["w=0.5,seed=1"].state == "collapsed"


def test_a_metric_that_is_not_finite_has_no_spread(results):
    results.runs["w=0.5,seed=1"].metrics["test/mse"] = float("inf")
    assert tables.table(results).rows[0]["test/mse"] == "inf ± nan"
    assert "nan" in tables.as_csv(tables.setting_rows(results))


def test_null_is_a_value_like_others(results):
    for run in results.runs.values():
        run.point["clip"] = None if run.name.startswith("w=0.5") else 1.0
    assert [row["clip"] for row in tables.table(results).rows] == ["null", "1"]


def test_a_list_may_begin_a_row_in_latex():
    assert tables._escaped("[30]") == "{[}30]"


def test_the_best_of_a_sweep_upon_an_earlier_best(results):
    results.definition.fixed += ["best=one_layer", "+callbacks.swa={_target_:a.b,lr:0.01}"]
    written = yaml.safe_load(tables.best_yaml(results))
    assert written["defaults"] == ["one_layer"]
    assert written["callbacks"] == {"swa": {"_target_": "a.b", "lr": 0.01}}


def test_why_a_job_failed_is_known_to_whoever_reads_the_folder(results):
    results.update("w=dynamic,seed=2", "RuntimeError: out of memory")
    run = Results.load(results.folder).runs["w=dynamic,seed=2"]
    assert (run.state, run.message) == ("failed", "RuntimeError: out of memory")
    results.update("w=dynamic,seed=2")
    assert Results.load(results.folder).runs["w=dynamic,seed=2"].state == "unfinished"


def test_folds_repeat_a_setting(results):
    for run in results.runs.values():
        run.point["data.fold"] = run.point.pop("seed")
    first, _ = tables.setting_rows(results)
    assert first["test/mse"] == pytest.approx(0.12)
    assert "data.fold" not in first
    assert "over folds 1, 2." in tables.caption(results)
    assert "fold" not in tables.best_yaml(results)


def test_the_history_has_a_point_a_setting_and_leaves_out_those_without_the_objective(results):
    results.definition.method = "random"
    assert plots.history(results) is None  # of two settings one has it
    results.runs["w=dynamic,seed=1"].state = "finished"
    points = plots.history(results).axes[0].collections[0].get_offsets()
    assert points.tolist() == [pytest.approx([0, 0.8]), pytest.approx([1, 0.99])]  # the first: the mean of 0.7 and 0.9


@pytest.mark.parametrize(
    ("objective", "labels"),
    [("val/accuracy", ["train/loss", "val/accuracy\n(share)"]), ("train/loss", ["train/loss"])],
)
def test_learning_curves_are_means_over_seeds_of_distinct_metrics(results, objective, labels):
    results.definition.objective = objective
    assert plots.learning_curves(results) is None  # no run has an epoch
    written = "epoch,train/loss,val/loss,val/accuracy\n1,{},{},0.5\n2,{},,0.75\n"
    for seed, (first, second) in enumerate([(0.25, 0.5), (0.75, 1.0)], 1):
        (results.folder / f"w=0.5,seed={seed}" / "metrics.csv").write_text(written.format(first, first, second))
    figure = plots.learning_curves(results)
    # val/loss has one point, which is no curve
    assert [axes.get_ylabel() for axes in figure.axes] == labels
    [line] = figure.axes[0].lines  # the other setting has no finished run
    assert line.get_xydata().tolist() == [[1, 0.5], [2, 0.75]]
    band = figure.axes[0].collections[0].get_datalim(figure.axes[0].transData)
    spread = 0.5**1.5  # of 0.25 and 0.75, and of 0.5 and 1: sqrt(2 * 0.25^2)
    assert (band.y0, band.y1) == pytest.approx((0.5 - spread, 0.75 + spread))
    drawn = plots.write(results)["Learning curves"]
    rows = list(csv.DictReader(drawn.with_suffix(".csv").open()))
    losses = [
        (row["task.w"], row["epoch"], row["runs"], float(row["mean"])) for row in rows if row["metric"] == "train/loss"
    ]
    assert losses == [("0.5", "1.0", "2", 0.5), ("0.5", "2.0", "2", 0.75)]
    assert all(
        float(row["standard_deviation"]) == pytest.approx(spread) for row in rows if row["metric"] == "train/loss"
    )


@pytest.mark.parametrize(
    ("values", "legend"), [(("a", "b"), True), (tuple("abcdefg"), True), (tuple("abcdefghijkl"), False)]
)
def test_lines_of_many_settings_can_be_told_apart_or_have_no_legend(results, values, legend):
    results.definition.varied = {"data": "", "deep": ""}
    results.definition.report = []
    results.runs = {}
    for number, value in enumerate(values):
        for deep in (False, True):
            run = Run(f"{value},{deep}", {"data": value, "deep": deep}, "finished", {"val/accuracy": number + deep / 2})
            (results.folder / run.name).mkdir()
            (results.folder / run.name / "metrics.csv").write_text("epoch,val/accuracy\n1,0.5\n2,0.6\n")
            results.runs[run.name] = run
    [axes] = plots.learning_curves(results).axes
    assert len({(str(line.get_color()), line.get_linestyle()) for line in axes.lines}) == 2 * len(values)
    assert (axes.get_legend() is not None) == legend


def test_the_best_setting_is_a_file_for_conf(tmp_path, results):
    for run in results.runs.values():
        run.point |= {"optimizer": "radam", "optimizer.lr": 0.02, "model.channels": value_of("[4,8]")}
    results.definition.fixed += [
        "scheduler=none",
        "trainer.max_epochs=7",
        "data.source=mnist",
        "data.root=/x",
        "seed=3",
        "data.folds=5",
        "+data.novelty=1",
        "~optimizer.fused",
    ]
    written = tables.best_yaml(results)
    command = "python train.py experiment=joint scheduler=none trainer.max_epochs=7 data.source=mnist seed=3"
    assert f"{command} +data.novelty=1 '~optimizer.fused'\n" in written
    assert yaml.safe_load(written) == {
        "defaults": [{"override /scheduler": "none"}, {"override /optimizer": "radam"}],
        "trainer": {"max_epochs": 7},
        "task": {"w": 0.5},
        "optimizer": {"lr": 0.02},
        "model": {"channels": [4, 8]},
    }
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "found.yaml").write_text(written.replace("task:\n  w: 0.5\n", ""))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra_compose(
            "train", ["experiment=joint", "best=found", f"hydra.searchpath=[file://{tmp_path}]", "trainer.max_epochs=3"]
        )
    assert config.optimizer._target_ == "torch.optim.RAdam"
    assert config.optimizer.lr == 0.02
    assert list(config.model.channels) == [4, 8]
    assert not config.scheduler


def test_folders_are_named_by_what_varies():
    assert job_name({"model.latent_dim": "3", "seed": "1"}) == "latent_dim=3,seed=1"
    assert job_name({"data/sequences": "var_plain", "+a.b": "x/y"}) == "sequences=var_plain,b=x-y"
    assert job_name({"data.angles": "[-30,40]"}) == "angles=-30-40"
    assert job_name({"data.angles": "[30]"}) == "angles=30"
    said = ["data.source=mnist", "data.root=/somewhere", "output_dir=x", "experiment=joint"]
    for order in (said, said[::-1]):
        assert str(default_folder("x", "loss_weight", order)) == "x/sweeps/loss_weight,source=mnist,experiment=joint"
    assert str(default_folder("x", "joint-seed", ["experiment=joint", "data.root=/somewhere"])) == "x/sweeps/joint-seed"


def test_a_folder_without_a_sweep(tmp_path):
    with pytest.raises(UserError, match=r"not the folder of a sweep \(it has no sweep.yaml\)"):
        Results.load(tmp_path)


def test_one_sweep_at_a_time(tmp_path):
    (tmp_path / "sweep.yaml").touch()
    with only_one(tmp_path), pytest.raises(UserError, match="is running this sweep already"), only_one(tmp_path):
        pass
    with only_one(tmp_path):  # free again
        pass


def test_a_refused_sweep_leaves_no_folder(tmp_path):
    with pytest.raises(UserError, match="wrong"), only_one(tmp_path / "refused"):
        raise UserError("wrong")
    assert not (tmp_path / "refused").exists()


def test_a_column_that_no_run_can_fill(results, caplog):
    results.definition.metrics = ["val/accuracy", "test/mes"]
    summary.show(results)
    assert caplog.messages == ["sweep.metrics: no finished run has test/mes; did you mean 'test/mse'?"]


def test_what_all_runs_share_is_compared_as_a_value(tmp_path, results):
    results.definition.fixed.append("model.bidirectional=true")
    results.definition.save(tmp_path)
    assert len(Results.load(tmp_path, {"model.bidirectional": True}).runs) == 4
    assert not Results.load(tmp_path, {"model.bidirectional": False}).runs


def test_a_search_is_drawn_on_the_scale_it_was_drawn_from(results):
    results.definition.method = "random"
    for i, run in enumerate(results.runs.values()):
        run.state, run.metrics = "finished", {"val/accuracy": 0.5 + i / 10}
        run.point = {"optimizer.lr": 0.001 * (1 + i), "optimizer.beta": 0.1 * (1 + i), "model.layers": 1 + i}
    results.definition.varied = {
        "optimizer.lr": "log-uniform in [0.001, 0.01]",
        "optimizer.beta": "uniform in [0, 1]",
        "model.layers": "uniform integers in [1, 4]",
    }
    rates, betas, layers = plots.curves(results).axes
    assert (rates.get_xscale(), betas.get_xscale(), layers.get_xscale()) == ("log", "linear", "linear")
    assert all(tick == int(tick) for tick in layers.get_xticks())
    assert all(tick == int(tick) for tick in plots.history(results).axes[0].get_xticks())


def test_no_line_leads_from_a_number_to_a_word(results):
    for run, weight in zip(results.runs.values(), (0.5, 1.0, "dynamic", "static"), strict=True):
        run.state, run.point = "finished", {"task.w": weight}
        run.metrics = {"val/accuracy": 0.5}
    line = plots.curves(results).axes[0].lines[0]
    assert np.isnan(line.get_xdata(orig=False)).tolist() == [
        False,
        False,
        True,
        False,
        False,
    ]  # a gap before the first word


def test_parallel_coordinates_say_which_are_logarithmic(results):
    for i, run in enumerate(results.runs.values()):
        run.state, run.metrics = "finished", {"val/accuracy": 0.5 + i / 10}
        run.point = {"optimizer.lr": 0.001 * 10**i, "model.layers": 1 + i, "model.kind": "ab"[i % 2]}
    results.definition.varied = dict.fromkeys(results.runs["w=0.5,seed=1"].point, "")
    labels = [text.get_text() for text in plots.parallel_coordinates(results).axes[0].get_xticklabels()]
    assert labels == ["lr\n(log)", "layers", "kind", "val/accuracy"]


def test_bars_say_what_they_are(results):
    for run in results.runs.values():
        run.state = "finished"
        run.metrics |= {"test/mse": 0.1 * run.point["seed"], "test/accuracy": 0.8}
    for figure in (plots.curves(results), plots.trade_off(results)):
        titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
        assert any("standard deviation over repeated runs" in title for title in titles)


def test_what_learns_nothing_is_no_axis_of_a_trade_off(results):
    for i, run in enumerate(results.runs.values()):
        run.state, run.metrics = (
            "finished",
            {"test/mse": 0.2 + i, "test/baseline_last/mse": 0.3 + i, "test/ssim": 0.1 * i},
        )
    (axes,) = plots.trade_off(results).axes
    assert {axes.get_xlabel(), axes.get_ylabel()} == {"test/mse\n(per pixel)", "test/ssim"}


def test_settings_without_a_metric_are_left_out_of_its_plot(results):
    for run in results.runs.values():
        run.metrics |= {"test/mse": 0.2}
        run.state = "finished"
    results.runs["w=0.5,seed=1"].metrics["test/accuracy"] = 0.9
    (axes,) = plots.trade_off(results).axes
    assert axes.get_xlabel() == "test/mse\n(per pixel)"
    assert len(axes.containers) == 1


@pytest.mark.parametrize(("direction", "best"), [("maximize", "dynamic"), ("minimize", 0.5)])
def test_the_best_setting_follows_the_direction(results, direction, best):
    found = results.runs["w=dynamic,seed=2"]
    found.state, found.metrics = "finished", {"val/accuracy": 0.95, "test/mse": 0.2}
    results.definition.direction, results.definition.method = direction, "random"
    assert results.best().point["task.w"] == 0.5  # the other one's first run collapsed
    results.runs["w=dynamic,seed=1"].state = "finished"
    assert str(results.best().point["task.w"]) == str(best)
    made = tables.table(results)
    assert (made.rows[0]["task.w"], made.best) == (str(best), 0)  # a search goes by its objective, the best first


def test_a_run_that_was_set_aside_stays_so_when_it_is_measured_again(tmp_path, results):
    (tmp_path / "w=0.5,seed=1" / "pruned").touch()
    for name in ("w=0.5,seed=1", "w=0.5,seed=2", "w=dynamic,seed=1"):
        place = tmp_path / name / "again"
        place.mkdir()
        (place / "metrics.json").write_text(json.dumps({"metrics": {"test/mse": 0.3}, "best": {}, "collapsed": False}))
    again = Results.load(tmp_path, evaluation="again")
    assert [run.state for run in again.runs.values()] == ["pruned", "finished", "collapsed", "unfinished"]
    assert again.runs["w=0.5,seed=2"].metrics == {"test/mse": 0.3}


def test_a_sweep_of_another_direction_is_another_sweep(tmp_path, results):
    results.definition.direction = "minimize"
    with pytest.raises(UserError, match="direction: maximize there, minimize now"):
        results.definition.compare(tmp_path)
