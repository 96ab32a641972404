import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from healing_mnist.checks import UserError
from healing_mnist.data import sources
from healing_mnist.data.blur import GaussianBlur
from healing_mnist.data.restoration import Restoration


def made(**settings):
    data = Restoration(source="digits", **settings)
    data.setup()
    return data


def test_blurred_in_clean_out():
    data, base = made(blur=GaussianBlur(1.0)), sources.load("digits")
    batch = data.batch("test", torch.tensor([3, 0, 7]))
    expected = base.test_images[[3, 0, 7]].numpy() / 255
    np.testing.assert_allclose(batch.target, expected, atol=1e-7)
    blurred = [[gaussian_filter(image, 1.0, mode="mirror")] for (image,) in expected]
    np.testing.assert_allclose(batch.input, blurred, atol=1e-6)
    assert torch.equal(batch.label, base.test_labels[[3, 0, 7]])
    assert batch.index.tolist() == [3, 0, 7]


def test_without_blur_input_is_the_target():
    batch = made().batch("val", torch.arange(4))
    assert batch.input is batch.target


def test_train_validation_and_test_share_no_image():
    data, base = made(val_fraction=0.2, seed=3), sources.load("digits")
    image = {split: set(data.tables[split]["image"].tolist()) for split in ("train", "val", "test")}
    count = len(base.train_images)
    assert image["train"] | image["val"] == set(range(count))
    assert not image["train"] & image["val"]
    assert image["test"] == set(range(count, count + len(base.test_images)))
    assert len(image["val"]) == round(0.2 * count)


def test_limit_is_taken_before_the_split_and_at_random():
    data = made(limit=100, val_fraction=0.2)
    assert [len(data.tables[split]["index"]) for split in ("train", "val", "test")] == [80, 20, 355]
    assert max(data.tables["train"]["image"]) > 200
    with pytest.raises(UserError, match=r"data\.limit=5000: at most 1442"):
        made(limit=5000)


def test_classes_have_names_where_the_source_gives_them():
    assert Restoration(source="cifar10").class_names[:2] == ["airplane", "automobile"]
    assert Restoration(source="digits").class_names[:2] == ["0", "1"]
