"""The CIFAR-10 experiments from files to figures, on a made-up archive."""

import numpy as np
import pytest

from healing_mnist import evaluation
from healing_mnist.data.sources import cifar10


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Files in the official format: noise with a bright row whose place tells the class."""
    folder, random = tmp_path_factory.mktemp("cifar"), np.random.default_rng(0)
    for name in (*cifar10.TRAIN, cifar10.TEST):
        records = random.integers(0, 120, (60, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(60) % 10
        for record in records:
            record[1:].reshape(3, 32, 32)[:, 3 * record[0]] = 250
        records.tofile(folder / name)
    return f"data.root={folder}"


FAST = ["trainer=cpu", "logger=none", "debug=fdr", "data.batch_size=16", "data.eval_batch_size=40"]


def test_restoration_leaves_figures_and_baselines(train, archive):
    found = train("experiment=cifar_autoencoder_cnn", archive, *FAST)
    assert {"test/mse_input", "test/mse_mean_image", "test/probe/class/linear"} <= found.metrics.keys()
    names = {path.name for path in (found.folder / "figures").iterdir()}
    assert {"reconstructions.png", "embedding.png", "probes.csv", "baselines.csv", "curves.png"} <= names


def test_classification_names_the_classes(train, archive):
    found = train("experiment=cifar_classifier_cnn", archive, *FAST)
    report = (found.folder / "figures" / "classification_report.txt").read_text()
    assert all(name in report for name in cifar10.CLASS_NAMES)
    assert (found.folder / "figures" / "probabilities.png").exists()


def test_the_joint_model_of_healing_mnist_takes_colour_too(train, archive):
    found = train("experiment=joint", "data=restoration", "analysis=joint", archive, *FAST)
    assert {"test/mse", "test/accuracy"} <= found.metrics.keys()


def test_a_few_epochs_find_the_class_in_the_rows(train, archive):
    """Labels and predictions are in step: a classifier that learns is right on test images, and its report says so."""
    settings = ["optimizer.lr=0.003", "trainer.max_epochs=5", "data.batch_size=20", "trainer=cpu", "logger=none"]
    found = train("experiment=cifar_classifier_cnn", archive, *settings)
    accuracy = found.metrics["test/accuracy"]
    assert accuracy > 0.8
    report = (found.folder / "figures" / "classification_report.csv").read_text().splitlines()
    assert float(report[-1].split(",")[2]) == pytest.approx(accuracy)


def autoencoders(train, archive, *sigmas):
    kinds = zip(("cnn", "rnn"), sigmas, strict=True)
    settings = [archive, "analysis=none", *FAST]
    return [
        train(f"experiment=cifar_autoencoder_{kind}", f"data.blur.sigma={s}", *settings).folder for kind, s in kinds
    ]


def test_two_runs_side_by_side(train, archive, tmp_path, capsys):
    evaluation.evaluate_all(autoencoders(train, archive, 1, 1), [archive])
    (picture,) = (tmp_path / "comparisons").rglob("side_by_side.png")
    assert f"Side by side: {picture.parent}" in capsys.readouterr().out
    header = picture.with_suffix(".csv").read_text().splitlines()[0]
    assert header == "row,class,mse input,mse cifar_autoencoder_cnn,mse cifar_autoencoder_rnn"


def test_runs_on_different_data_are_not_compared(train, archive):
    assert evaluation.compare(autoencoders(train, archive, 1, 2), [archive]) is None
