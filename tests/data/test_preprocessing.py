import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.distance import mahalanobis

from healing_mnist.checks import UserError
from healing_mnist.data.preprocessing import denoise, find_outliers, precision_recall


def differences(sequences=40, transitions=6, pixels=(2, 3)):
    """Frame differences of correlated Gaussian pixels."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(math.prod(pixels), math.prod(pixels)))
    values = random.normal(size=(sequences, transitions, math.prod(pixels))) @ mixing + 3
    return torch.from_numpy(values.astype(np.float32)).view(sequences, transitions, 1, *pixels)


def test_distance_is_mahalanobis_standardised():
    data = differences()
    found = find_outliers(data, components=6, threshold=2.0)  # as many as pixels: nothing is projected away
    flat = data.reshape(240, 6).double().numpy()
    inverse = np.linalg.inv(np.cov(flat.T))
    expected = np.array([mahalanobis(row, flat.mean(0), inverse) for row in flat])
    expected = ((expected - expected.mean()) / expected.std(ddof=1)).reshape(40, 6)
    np.testing.assert_allclose(found.distance.numpy(), expected, atol=1e-3)
    assert torch.equal(found.outlying, torch.from_numpy(expected > 2.0))
    assert 0 < found.outlying.sum() < 24
    assert found.explained.sum().item() == pytest.approx(1, abs=1e-5)


def test_planted_jump_is_found_and_nothing_else():
    data = differences(pixels=(6, 6))
    data[7, 3] += 60 * torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(0))
    found = find_outliers(data, components=10, threshold=5.0)
    assert found.outlying.nonzero().tolist() == [[7, 3]]
    assert found.projection.shape == (40, 6, 10)


def test_only_the_far_side_is_outlying():
    found = find_outliers(differences(), components=6, threshold=1.0)
    assert found.distance.min() < -1
    assert not found.outlying[found.distance < -1].any()


def test_equal_transitions_have_no_outliers():
    assert not find_outliers(torch.zeros(5, 4, 1, 3, 3), components=2, threshold=3.0).outlying.any()


def test_too_many_components():
    with pytest.raises(UserError, match=r"data.components=7: at most 6, there are 240 transitions of 6 pixels"):
        find_outliers(differences(), components=7, threshold=3.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_is_refused(value):
    data = differences()
    data[4, 1, 0, 0, 2] = value
    with pytest.raises(UserError, match="1 pixels are NaN or infinite, the first in sequence 4"):
        find_outliers(data, components=3, threshold=3.0)


def test_precision_recall_by_hand():
    found, planted = torch.tensor([[1, 1, 0], [1, 1, 0]]) > 0, torch.tensor([[1, 0, 0], [0, 0, 1]]) > 0
    assert precision_recall(found, planted) == (0.25, 0.5)
    none = torch.zeros(2, 3, dtype=torch.bool)
    assert all(math.isnan(value) for value in precision_recall(none, none))


def test_denoise_takes_noise_and_keeps_edges():
    clean = torch.zeros(2, 3, 36, 36, dtype=torch.uint8) + 60
    clean[..., 10:26, 12:24] = 180
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)) * 15
    noisy = (clean + noise).round().clamp(0, 255).to(torch.uint8)
    result = denoise(noisy, 0.1)
    error = lambda images: (images.float() - clean.float()).square().mean().sqrt()  # noqa: E731
    assert result.dtype == torch.uint8
    assert error(result) < 0.4 * error(noisy)
    blurred = torch.from_numpy(ndimage.gaussian_filter(noisy.numpy(), (0, 0, 1, 1)))
    assert error(result) < 0.7 * error(blurred)  # a blur that takes the noise takes the edges too
    assert torch.equal(denoise(noisy[1:], 0.1), result[1:])


def test_weak_denoising_changes_nothing():
    images = torch.randint(0, 256, (1, 1, 20, 20), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert torch.equal(denoise(images, 1e-3), images)


def test_denoising_averages_patches_of_three_within_twenty_one():
    """Non-local means in a loop: weights by the mean squared difference of patches, from the whole search window."""
    strength, random = 0.3, np.random.default_rng(0)
    image = random.integers(0, 256, (40, 40)).astype(np.uint8)
    image[:, 20:] //= 4
    padded = np.pad(image.astype(float), 11, mode="reflect")
    for y, x in ((20, 18), (5, 30)):
        patch = padded[y + 10 : y + 13, x + 10 : x + 13]
        total = weights = 0.0
        for dy in range(-10, 11):
            for dx in range(-10, 11):
                other = padded[y + 10 + dy : y + 13 + dy, x + 10 + dx : x + 13 + dx]
                weight = np.exp(-((patch - other) ** 2).mean() / (255 * strength) ** 2)
                total, weights = total + weight * other[1, 1], weights + weight
        found = denoise(torch.from_numpy(image)[None, None], strength)[0, 0, y, x].item()
        assert found == pytest.approx(total / weights, abs=1.5)
