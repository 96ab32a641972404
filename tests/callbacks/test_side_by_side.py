import pytest
import torch
from PIL import Image

from healing_mnist.callbacks.figures import rasterize
from healing_mnist.callbacks.side_by_side import side_by_side


class Dim:
    """A task that returns its input, dimmed."""

    device = torch.device("cpu")

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, batch):
        from healing_mnist.batch import Output

        return Output(image=batch.input * self.factor)


@pytest.mark.parametrize(("fixture", "darker"), [("two_tests", 0.5), ("plain_data", 1.0)])
def test_errors_of_every_run(fixture, darker, request):
    data = request.getfixturevalue(fixture)
    data.setup()
    split = data.test_splits[0]
    figure, table = side_by_side({"a": Dim(1.0), "b": Dim(0.2)}, data, count=4, split=split)
    assert [row["row"] for row in table] == [0, 1, 2, 3]
    for i, row in enumerate(table):
        target = data.images[i].double() / 255
        shown = {"a": darker * target, "b": 0.2 * darker * target}
        if darker < 1:
            shown["input"] = darker * target
        expected = {f"mse {name}": float(((image - target) ** 2).mean()) for name, image in shown.items()}
        assert {k: v for k, v in row.items() if k.startswith("mse")} == pytest.approx(expected, rel=1e-5)
        assert row["class"] == data.tables[split]["label"][i]
    assert Image.fromarray(rasterize(figure)).size[0] > 300
