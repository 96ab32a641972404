import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from healing_mnist.checks import UserError
from healing_mnist.data import sources


def test_names_are_the_modules():
    assert {"digits", "mnist", "fashion_mnist", "cifar10"} <= set(sources.names())


@pytest.mark.parametrize("name", ["mnits", "digts", "no.such.module", ".mnist", None])
def test_an_unknown_source_is_answered_with_those_there_are(name):
    with pytest.raises(UserError) as error:
        sources.load(name)
    assert f"data.source={name}: unknown source" in str(error.value)
    assert "digits, fashion_mnist, mnist" in str(error.value)
    if name == "mnits":
        assert "did you mean 'mnist'?" in str(error.value)


def test_a_module_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "shapes.py").write_text(
        "import torch\nfrom healing_mnist.data.sources import Base\nIMAGE_SHAPE = [3, 5, 7]\nNUM_CLASSES = 2\n"
        "def load(root, cache):\n"
        "    images = torch.zeros(4, 3, 5, 7, dtype=torch.uint8) if root is None else torch.rand(4, 3, 5, 7)\n"
        "    return Base(images, torch.arange(4) % 2, images, torch.arange(4) % 2)\n"
    )
    (tmp_path / "mine" / "half.py").write_text("IMAGE_SHAPE = (1, 2, 3)\n")
    (tmp_path / "mine" / "broken.py").write_text("import not_installed_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert sources.image_shape("mine.shapes") == (3, 5, 7)
    assert sources.num_classes("mine.shapes") == 2
    assert sources.load("mine.shapes", None, tmp_path).train_images.shape == (4, 3, 5, 7)
    wanted = r"mine\.shapes: train_images must be uint8 \(4, 3, 5, 7\), not float32 \(4, 3, 5, 7\)"
    with pytest.raises(UserError, match=wanted):
        sources.load("mine.shapes", tmp_path, tmp_path)
    with pytest.raises(UserError, match=r"mine\.half is no source, it has no NUM_CLASSES, load"):
        sources.image_shape("mine.half")
    (tmp_path / "mine" / "wrong.py").write_text("IMAGE_SHAPE = (1, 2,\n")
    for name, why in (("broken", "No module named 'not_installed_here'"), ("wrong", "was never closed")):
        with pytest.raises(UserError, match=rf"data\.source=mine\.{name}: cannot be imported \(.*{why}"):
            sources.image_shape(f"mine.{name}")


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ("torch.arange(4) % 2 + 0.0", r"train_labels must be int64 \(4,\) in 0\.\.1, not float32 \(4,\)"),
        ("torch.zeros(4, 1, dtype=torch.int64)", r"train_labels must be int64 \(4,\) in 0\.\.1, not int64 \(4, 1\)"),
        ("torch.arange(4)", r"train_labels must be .* not int64 \(4,\) in 0\.\.3"),
        ("torch.arange(0)", "no train_images"),
    ],
)
def test_labels_of_a_users_source_are_checked(labels, complaint, tmp_path, monkeypatch):
    (tmp_path / "mine_too").mkdir()
    (tmp_path / "mine_too" / "labelled.py").write_text(
        "import torch\nfrom healing_mnist.data.sources import Base\nIMAGE_SHAPE = [1, 5, 7]\nNUM_CLASSES = 2\n"
        f"def load(root, cache):\n    labels = {labels}\n"
        "    images = torch.zeros(len(labels), 1, 5, 7, dtype=torch.uint8)\n"
        "    return Base(images, labels, images, labels)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("mine_too", "mine_too.labelled"):
        sys.modules.pop(module, None)
    with pytest.raises(UserError, match=complaint):
        sources.load("mine_too.labelled")


def test_digits_read_no_folder(tmp_path):
    with pytest.raises(UserError, match=r"data\.source=digits is bundled and reads no folder; name the source"):
        sources.load("digits", tmp_path)


def test_shape_and_classes_are_known_without_torch():
    program = (
        "import sys; from healing_mnist.data import sources;"
        "print([(sources.image_shape(n), sources.num_classes(n)) for n in sources.names()], 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("False")
    assert out.count("(1, 28, 28), 10") == 3


def test_digits_are_the_bundled_ones_enlarged():
    base = sources.load("digits")
    small, labels = load_digits(return_X_y=True)
    assert len(base.train_images) + len(base.test_images) == len(small) == 1797
    assert np.array_equal(np.bincount(torch.cat((base.train_labels, base.test_labels))), np.bincount(labels))
    for images, own_labels in ((base.train_images, base.train_labels), (base.test_images, base.test_labels)):
        assert images.shape[1:] == sources.image_shape("digits")
        assert images.dtype == torch.uint8
        assert own_labels.dtype == torch.int64
        # Shrunk again, an image resembles one of the originals more than any other does, and that has its label.
        middle = images[:50, :, 4:24, 4:24].float() / 255
        shrunk = torch.nn.functional.interpolate(middle, size=(8, 8), mode="area").flatten(1).numpy()
        nearest = np.linalg.norm(shrunk[:, None] - small[None] / 16, axis=2).argmin(1)
        assert np.array_equal(labels[nearest], own_labels[:50].numpy())
        margin = images.clone()
        margin[:, :, 3:25, 3:25] = 0
        assert margin.max() < 5  # of 255


def test_digits_are_split_evenly_by_class_and_always_the_same():
    base, again = sources.load("digits"), sources.load("digits")
    share = base.test_labels.bincount() / (base.test_labels.bincount() + base.train_labels.bincount())
    assert ((share - 0.2).abs() < 0.01).all()
    assert base.train_images.equal(again.train_images)
    assert base.test_labels.equal(again.test_labels)
