import numpy as np
import pytest
import sklearn.metrics
import torch

from healing_mnist.callbacks.confusion import Confusion, as_text, classification_report, draw_bars

NAMES = ["cat", "dog", "owl", "fox"]


def test_matrix_counts_what_the_network_says(run_test, network, read_csv, tmp_path):
    _, data = run_test(Confusion())
    with torch.no_grad():
        said = network(0.5 * data.images.float() / 255).logits.argmax(1)
    expected = sklearn.metrics.confusion_matrix(data.tables["test"]["label"], said, labels=[0, 1, 2])
    found = [[int(row[f"predicted {i}"]) for i in range(3)] for row in read_csv("confusion")]
    np.testing.assert_array_equal(found, expected)
    recall = sklearn.metrics.recall_score(data.tables["test"]["label"], said, average=None, labels=[0, 1, 2])
    assert [float(row["accuracy"]) for row in read_csv("class_accuracy")] == pytest.approx(recall)
    for name in ("confusion.png", "class_accuracy.png", "classification_report.csv", "classification_report.txt"):
        assert (tmp_path / "figures" / name).exists()


def test_a_low_bar_has_a_number_that_can_be_read():
    shares = {"cat": 0, "dog": 0.5, "owl": 1, "fox": 0.01}
    figure = draw_bars([{"class": name, "accuracy": share} for name, share in shares.items()], 0.4)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["0.0", "50.0", "100.0", "1.0"]
    assert {text.get_color() for text in axes.texts} == {"black"}
    boxes = [text.get_window_extent() for text in axes.texts]
    for box, bar in zip(boxes, axes.patches, strict=True):
        assert bar.get_window_extent().y1 < box.y0 < box.y1 < axes.bbox.y1
    assert not axes.get_legend().get_window_extent().overlaps(axes.bbox)


def test_report_agrees_with_sklearn():
    random = np.random.default_rng(0)
    true, said = random.integers(0, 4, 200), random.integers(0, 3, 200)  # nobody says "fox"
    report = classification_report(sklearn.metrics.confusion_matrix(true, said), NAMES)
    expected = sklearn.metrics.classification_report(true, said, target_names=NAMES, output_dict=True, zero_division=0)
    keys = {"macro average": "macro avg", "weighted average": "weighted avg"}
    for row in report[:-1]:
        wanted = expected[keys.get(row["class"], row["class"])]
        assert row["precision"] == pytest.approx(wanted["precision"])
        assert row["recall"] == pytest.approx(wanted["recall"])
        assert row["f1"] == pytest.approx(wanted["f1-score"])
        assert row["support"] == wanted["support"]
    assert report[-1]["recall"] == pytest.approx(expected["accuracy"])
    assert len(as_text(report).splitlines()) == 8
