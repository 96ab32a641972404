import pytest
import torch

from healing_mnist.callbacks.probabilities import Probabilities
from healing_mnist.checks import UserError


def test_chosen_rows_with_the_softmax_of_their_logits(run_test, network, read_csv, tmp_path):
    _, data = run_test(Probabilities(rows=[12, 3]))  # 12 is in the second batch
    rows = read_csv("probabilities")
    assert [row["row"] for row in rows] == ["12", "3"]
    with torch.no_grad():
        logits = network(0.5 * data.images[[12, 3]].float() / 255).logits
    expected = logits.exp() / logits.exp().sum(1, keepdim=True)
    for row, wanted, label in zip(rows, expected, data.tables["test"]["label"][[12, 3]], strict=True):
        assert [float(row[name]) for name in "012"] == pytest.approx(wanted.tolist(), rel=1e-5)
        assert row["class"] == str(int(label))
    assert (tmp_path / "figures/probabilities.png").exists()


def test_a_row_that_is_not_there_is_named(two_tests):
    two_tests.setup()
    Probabilities(rows=[0, 22]).check_data(two_tests)
    with pytest.raises(UserError, match=r"probabilities.rows: no row 23; the test set has 23, from 0"):
        Probabilities(rows=[0, 23]).check_data(two_tests)
