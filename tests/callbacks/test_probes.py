import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier

from healing_mnist.batch import Batch, Output
from healing_mnist.callbacks.embeddings import Sample
from healing_mnist.callbacks.probes import Probes, score, silhouette


def sample(embedding, **attributes):
    batch = Batch(None, None, torch.zeros(len(embedding)), None, attributes)
    made = Sample()
    made.add(batch, Output(embedding=embedding), list(attributes), 1000)
    return made


def test_scores_of_what_is_there_and_of_what_is_not():
    torch.manual_seed(0)
    parts = {}
    for split, count in (("train", 300), ("test", 200)):
        x = torch.randn(count, 4)
        angle, coin = 30 * x[:, 1], torch.randint(2, (count,))
        parts[split] = sample(x, side=(x[:, 0] > 0).long(), angle=angle, coin=coin, same=torch.ones(count))
    rows = {row["attribute"]: row for row in score(**parts, names=["side", "angle", "coin", "same"], neighbours=5)}
    assert list(rows) == ["side", "angle", "coin"]  # an attribute with one value is left out
    assert rows["side"]["score"] == "accuracy"
    assert rows["side"]["linear"] > 0.95
    assert rows["side"]["silhouette"] > 0.1 > abs(rows["coin"]["silhouette"])
    assert rows["angle"]["silhouette"] is None
    assert rows["angle"]["score"] == "R2"
    assert rows["angle"]["linear"] > 0.99
    assert abs(rows["coin"]["linear"] - 0.5) < 0.12
    assert abs(rows["coin"]["knn"] - 0.5) < 0.12
    assert abs(rows["coin"]["chance"] - 0.5) < 0.12


def test_what_the_probes_learn_is_scaled_as_in_training():
    torch.manual_seed(0)
    x, y = torch.randn(300, 3), 5 + 3 * torch.randn(200, 3)  # a test set from elsewhere
    train, test = (sample(part, side=(part[:, 0] > 1).long()) for part in (x, y))
    (row,) = score(train, test, ["side"], neighbours=5)
    model = LogisticRegression().fit((x - x.mean(0)) / x.std(0, correction=0), x[:, 0] > 1)
    expected = model.score((y - x.mean(0)) / x.std(0, correction=0), y[:, 0] > 1)
    elsewhere = model.score((y - y.mean(0)) / y.std(0, correction=0), y[:, 0] > 1)
    assert row["linear"] == pytest.approx(expected, abs=0.01)
    assert abs(expected - elsewhere) > 0.1


def test_classes_may_have_any_values_also_such_as_training_has_not_seen():
    torch.manual_seed(0)
    x, y = torch.randn(300, 2), torch.randn(200, 2)
    angle = torch.where(y[:, 0] > 0, 22.5, 45.0)
    angle[:20] = 30.0
    train = sample(x, angle=torch.where(x[:, 0] > 0, 22.5, 45.0))
    (row,) = score(train, sample(y, angle=angle), ["angle"], neighbours=5)
    assert row["score"] == "accuracy"
    assert 0.85 < row["linear"] <= 0.9
    assert row["chance"] == pytest.approx((angle == train.attributes[0]["angle"].mode().values).float().mean())


def test_probes_learn_from_train_and_are_scored_on_test(run_test, read_csv, network, tmp_path):
    trainer, data = run_test(Probes(neighbours=3))
    with torch.no_grad():
        embedding = network(0.5 * data.images.float() / 255).embedding.numpy()
    standard = (embedding - embedding.mean(0)) / embedding.std(0)
    train, test = data.tables["train"], data.tables["test"]
    expected = {
        ("class", "linear"): LogisticRegression().fit(standard, train["label"]).score(standard, test["label"]),
        ("class", "knn"): KNeighborsClassifier(3).fit(standard, train["label"]).score(standard, test["label"]),
        ("angle", "linear"): Ridge().fit(standard, train["angle"]).score(standard, test["angle"]),
    }
    rows = {row["attribute"]: row for row in read_csv("probes")}
    for (attribute, probe), value in expected.items():
        assert float(rows[attribute][probe]) == pytest.approx(value, abs=1e-3)
        assert trainer.callback_metrics[f"test/probe/{attribute}/{probe}"] == pytest.approx(value, abs=1e-3)
    common = np.bincount(train["label"]).argmax()
    assert float(rows["class"]["chance"]) == pytest.approx((test["label"] == common).float().mean())
    assert (tmp_path / "figures/probes.png").exists()


def test_silhouette_of_four_points_by_hand():
    # Two clusters on a line, {0, 1} and {5, 6}: for 0 and 6, a = 1 and b = 5.5; for 1 and 5, a = 1 and b = 4.5.
    points, values = np.array([[0.0], [1.0], [5.0], [6.0]]), np.array([3, 3, 7, 7])
    assert silhouette(points, values) == pytest.approx((4.5 / 5.5 + 3.5 / 4.5) / 2)
    assert silhouette(points, np.zeros(4)) is None


def test_long_embeddings_are_reduced_first():
    torch.manual_seed(0)
    label = torch.arange(300) % 3
    embedding = torch.randn(300, 600) + 4 * torch.nn.functional.one_hot(label, 600)
    (row,) = score(sample(embedding, kind=label), sample(embedding, kind=label), ["kind"], 5)
    assert row["linear"] > 0.9
