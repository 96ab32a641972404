import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from healing_mnist.checks import problems_of
from healing_mnist.data.blur import GaussianBlur


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.3, 11.0])  # the last kernel is longer than the image
def test_equals_scipy(sigma):
    images = torch.rand(2, 3, 9, 14)
    expected = [[gaussian_filter(channel, sigma, mode="mirror") for channel in image] for image in images.numpy()]
    np.testing.assert_allclose(GaussianBlur(sigma)(images), expected, atol=1e-6)


def test_nothing_leaks_between_images():
    images = torch.zeros(3, 1, 8, 8)
    images[1] = 1
    blurred = GaussianBlur(1.5)(images)
    torch.testing.assert_close(blurred, images)  # a constant image stays, its neighbours stay empty


def test_zero_is_the_image_itself():
    images = torch.rand(2, 1, 5, 5)
    assert GaussianBlur(0)(images) is images


def test_negative_sigma_is_named():
    node = {"_target_": "healing_mnist.data.blur.GaussianBlur", "sigma": -1}
    assert problems_of(node, "data.blur") == ["data.blur.sigma=-1: must be a number at least 0"]
