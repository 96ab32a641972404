import pytest
import torch

from healing_mnist.callbacks.probabilities import Probabilities


def test_chosen_rows_with_the_softmax_of_their_logits(run_test, network, read_csv, tmp_path):
    _, data = run_test(Probabilities(rows=[12, 3, 99]))  # 12 is in the second batch, 99 is no row
    rows = read_csv("probabilities")
    assert [row["row"] for row in rows] == ["12", "3"]
    with torch.no_grad():
        logits = network(0.5 * data.images[[12, 3]].float() / 255).logits
    expected = logits.exp() / logits.exp().sum(1, keepdim=True)
    for row, wanted, label in zip(rows, expected, data.tables["test"]["label"][[12, 3]], strict=True):
        assert [float(row[name]) for name in "012"] == pytest.approx(wanted.tolist(), rel=1e-5)
        assert row["class"] == str(int(label))
    assert (tmp_path / "figures/probabilities.png").exists()
