import numpy as np
import pytest
import torch
from scipy.ndimage import rotate as scipy_rotate

from healing_mnist.checks import UserError
from healing_mnist.data.healing import HealingImages
from healing_mnist.data.sources import load

FINAL = {"rotation_ratio": 0.5, "square_ratio": 0.5, "square_size": (3, 8)}


def made(**settings):
    data = HealingImages(**settings)
    data.setup()
    return data


def everything(data, split="train"):
    return data.batch(split, torch.arange(len(data.tables[split]["index"])))


def by_hand(image, angle, square, squares):
    """One image with SciPy and slices: (1, 28, 28) uint8 -> (28, 28)."""
    frame = image[0].numpy() / 255
    if angle:
        frame = scipy_rotate(frame, angle, order=1, reshape=False)
    if square:
        near, far = slice(square), slice(-square, None)
        for corner in [(near, near), (near, far), (far, near), (far, far)][:squares]:
            frame[corner] = 1
    return frame


@pytest.mark.parametrize("squares", [1, 3])
def test_frames_are_those_made_by_hand(squares):
    data = made(**FINAL, squares=squares)
    table = data.tables["test"]
    batch = everything(data, "test")
    assert batch.input is batch.target
    for row in range(60):
        image, angle, square = (table[name][row].item() for name in ("image", "angle", "square"))
        expected = by_hand(data.images[image], angle, square, squares)
        np.testing.assert_allclose(batch.input[row, 0].numpy(), expected, atol=1e-5)
        assert batch.label[row] == data.labels[image]


def test_what_is_not_touched_is_the_image_to_the_last_bit():
    data = made(**FINAL)
    base = load("digits")
    batch = everything(data)
    plain = (batch.attributes["angle"] == 0) & (batch.attributes["square"] == 0)
    assert 0.2 < plain.float().mean() < 0.3
    images = base.train_images[data.tables["train"]["image"].long()][plain]
    assert torch.equal(batch.input[plain], torch.from_numpy(images.numpy().astype(np.float32) / np.float32(255)))
    assert torch.equal(batch.label[plain], base.train_labels[data.tables["train"]["image"].long()][plain])


def test_without_ratios_images_are_plain():
    data = made()
    batch = everything(data, "val")
    assert batch.attributes == {}
    assert torch.equal(batch.input, data.images[data.tables["val"]["image"].long()] / 255)


def test_proportions_and_ranges_are_those_asked_for():
    data = made(rotation_ratio=0.3, max_angle=90, square_ratio=0.6, square_size=(3, 8))
    attributes = everything(data).attributes
    rotated, angle, square = (attributes[name] for name in ("rotated", "angle", "square"))
    assert torch.equal(rotated > 0, angle > 0)
    # 1,298 images: three standard deviations are 0.04
    assert rotated.float().mean() == pytest.approx(0.3, abs=0.04)
    assert (square > 0).float().mean() == pytest.approx(0.6, abs=0.04)
    assert ((rotated > 0) & (square > 0)).float().mean() == pytest.approx(0.18, abs=0.04)
    turned = angle[angle > 0]
    assert turned.max() <= 90
    assert np.allclose(turned.quantile(torch.tensor([0.25, 0.5, 0.75])), [22.5, 45, 67.5], atol=8)
    assert square.unique().tolist() == [0, 3, 4, 5, 6, 7, 8]


def test_both_touch_the_same_images_where_they_are_not_independent():
    attributes = everything(made(**FINAL, independent=False)).attributes
    assert torch.equal(attributes["rotated"] > 0, attributes["square"] > 0)
    assert 0.4 < attributes["rotated"].float().mean() < 0.6


def test_a_ratio_changes_which_images_are_touched_and_nothing_else():
    few, many = (made(rotation_ratio=ratio, square_ratio=ratio).tables["train"] for ratio in (0.2, 0.7))
    assert torch.equal(few["image"], many["image"])
    for column in ("angle", "square"):
        touched = few[column] > 0
        assert 0 < touched.sum() < (many[column] > 0).sum()
        assert torch.equal(few[column][touched], many[column][touched])


def test_a_batch_equals_its_rows_one_by_one():
    data = made(**FINAL)
    rows = torch.tensor([5, 1200, 3, 77, 5])
    batch = data.batch("train", rows)
    for place, row in enumerate(rows):
        alone = data.batch("train", row[None])
        assert torch.equal(alone.input[0], batch.input[place])
        assert all(torch.equal(alone.attributes[name][0], batch.attributes[name][place]) for name in alone.attributes)
    assert torch.equal(batch.index, rows)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"square_size": 29}, "data.square_size=29: larger than the image, at most 28"),
        ({"square_size": (3, 40)}, "larger than the image"),
        ({"square_size": (8, 3)}, "data.square_size=[8, 3]: an empty range"),
        ({"squares": 5}, "data.squares=5: must be in 1..4"),
        ({"source": "digitz"}, "did you mean 'digits'?"),
        ({"folds": 3}, "data.fold=null"),
        ({"val_fraction": 1.0}, "data.val_fraction=1"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_loaded(settings, says):
    with pytest.raises(UserError) as error:
        HealingImages(**settings)
    assert says in str(error.value)


def test_colour_images_keep_their_channels():
    assert HealingImages(source="cifar10", square_size=32).image_shape == (3, 32, 32)
