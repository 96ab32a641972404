from healing_mnist.callbacks.curves import Curves, draw

METRICS = "epoch,train/loss,val/loss,val/mse,test/mse\n0,2.0,1.5,,\n1,nan,1.25,0.5,\n1,,,,0.4\n"


def test_series_of_train_and_val(run_test, read_csv, tmp_path):
    (tmp_path / "metrics.csv").write_text(METRICS)
    run_test(Curves())
    found = [(row["metric"], float(row["epoch"]), float(row["value"])) for row in read_csv("curves")]
    assert found == [
        ("train/loss", 0, 2.0),
        ("val/loss", 0, 1.5),
        ("val/loss", 1, 1.25),
        ("val/mse", 1, 0.5),
    ]
    assert (tmp_path / "figures/curves.png").exists()


def test_each_panel_says_what_is_up():
    axes = draw({"mse": {"val": [(0, 0.5), (1, 0.4)]}, "loss": {"train": [(0, 2.0)]}}).axes
    assert [(axis.get_xlabel(), axis.get_ylabel()) for axis in axes] == [
        ("epoch", "mse (per pixel)"),
        ("epoch", "loss"),
    ]


def test_no_metrics_no_figure(run_test, tmp_path):
    run_test(Curves())
    assert not (tmp_path / "figures").exists()
