import pytest
from PIL import Image

from healing_mnist.callbacks.reconstructions import Reconstructions


def test_numbers_are_each_images_error(run_test, read_csv, tmp_path):
    _, data = run_test(Reconstructions(count=4))
    rows = read_csv("reconstructions")
    assert [row["row"] for row in rows] == ["0", "1", "2", "3"]
    for i, row in enumerate(rows):
        target = data.images[i].numpy() / 255
        assert float(row["mse"]) == pytest.approx(((0.45 * target - target) ** 2).mean(), rel=1e-5)
        assert int(row["class"]) == data.tables["test"]["label"][i]
    assert Image.open(tmp_path / "figures/reconstructions.png").size[0] > 300


def test_one_figure_a_test_split(run_test, two_tests, tmp_path):
    run_test(Reconstructions(), data=two_tests)
    names = sorted(p.name for p in (tmp_path / "figures").glob("*.png"))
    assert names == ["far_reconstructions.png", "near_reconstructions.png"]


@pytest.mark.parametrize(("every", "expected"), [(1, ["reconstructions"]), (0, [])])
def test_pictures_while_training_go_to_tensorboard(every, expected, run_test, tags, tmp_path):
    callback = Reconstructions(every=every)
    callback.on_test_batch_end = lambda *_: None
    run_test(callback, fit=True)
    assert tags() == expected
    assert not (tmp_path / "figures").exists()
