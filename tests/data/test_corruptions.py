"""Each corruption against its definition, counted or computed with NumPy and SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from healing_mnist.checks import UserError
from healing_mnist.data.corruptions import gaussian, missing_region, poisson, salt_and_pepper

NOISES = gaussian, poisson, salt_and_pepper
SEEDS = torch.arange(20) + 1000


def constant(value, count=20):
    return torch.full((count, 2, 1, 36, 36), value)


@pytest.mark.parametrize("noise", NOISES)
def test_zero_leaves_images_alone_and_the_input_is_never_changed(noise):
    images = torch.rand(20, 2, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    assert torch.equal(noise(images, 0, SEEDS), before)
    changed = noise(images, 0.3, SEEDS)
    assert not torch.equal(changed, before)
    assert torch.equal(images, before)
    assert changed.min() >= 0
    assert changed.max() <= 1


@pytest.mark.parametrize("noise", NOISES)
def test_batch_equals_its_items(noise):
    images = torch.rand(20, 2, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    items = [noise(image[None], 0.4, seed[None]) for image, seed in zip(images, SEEDS, strict=True)]
    assert torch.equal(noise(images, 0.4, SEEDS), torch.cat(items))
    assert len({item.numpy().tobytes() for item in items}) == 20


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("intensity", [-0.01, 1.01, math.nan])
def test_intensity_outside_its_range(noise, intensity):
    with pytest.raises(UserError, match=rf"intensity={intensity:g}: must be in \[0, 1\]"):
        noise(constant(0.5), intensity, SEEDS)


@pytest.mark.parametrize("noise", NOISES)
def test_error_grows_with_intensity(noise):
    images = torch.rand(20, 2, 1, 36, 36, generator=torch.Generator().manual_seed(0))
    errors = [(noise(images, i / 10, SEEDS) - images).square().mean().item() for i in range(11)]
    assert errors == sorted(errors)
    assert errors[1] > 0


def test_salt_and_pepper_hits_all_channels_of_a_pixel():
    images = torch.full((20, 3, 30, 30), 0.5)
    noisy = salt_and_pepper(images, 0.2, SEEDS)
    assert torch.equal(noisy, noisy[:, :1].expand_as(noisy))
    assert (noisy != images).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert (salt_and_pepper(images, 1, SEEDS) != 0.5).all()


def test_gaussian_is_the_normal_distribution_clipped():
    values = gaussian(constant(0.5), 0.2, SEEDS).flatten().double().numpy()
    inside = values[(values > 0) & (values < 1)]
    assert stats.kstest(inside, stats.truncnorm(-2.5, 2.5, 0.5, 0.2).cdf).pvalue > 1e-3
    tail = stats.norm.cdf(-2.5)
    for edge in (0, 1):
        assert abs((values == edge).mean() - tail) < 4 * math.sqrt(tail / len(values))


@pytest.mark.parametrize(("value", "intensity"), [(0.02, 0.05), (0.3, 0.4), (0.4, 0.2), (0.5, 0.15), (0.6, 0.05)])
def test_poisson_counts_photons(value, intensity):
    counts = poisson(constant(value), intensity, SEEDS).flatten().double().numpy() / intensity**2
    mean = value / intensity**2  # from 2 to 240 photons, where nothing is clipped but by chance
    most = math.floor(1 / intensity**2)
    assert np.abs(counts[counts < most] - counts[counts < most].round()).max() < 1e-3
    for k in range(most):
        expected = stats.poisson.cdf(k, mean)
        assert abs((counts < k + 0.5).mean() - expected) < 0.002 + 4 * math.sqrt(0.25 / len(counts))


def test_poisson_spreads_like_gaussian_at_white_and_leaves_black_black():
    images = constant(0.8)  # below white, as clipping would take half of the spread
    images[..., :18] = 0
    values = poisson(images, 0.05, SEEDS)
    assert not values[..., :18].any()
    assert values[..., 18:].std().item() == pytest.approx(0.05 * math.sqrt(0.8), rel=0.02)
    assert values[..., 18:].mean().item() == pytest.approx(0.8, abs=1e-3)


def test_salt_and_pepper_hits_a_share_of_the_pixels():
    values = salt_and_pepper(constant(0.5), 0.3, SEEDS)
    spread = 4 * math.sqrt(0.15 / values.numel())
    for extreme in (0, 1):
        assert abs((values == extreme).float().mean() - 0.15) < spread
    everything = salt_and_pepper(constant(0.5), 1, SEEDS)
    assert ((everything == 0) | (everything == 1)).all()


def test_salt_and_pepper_hit_stays_hit():
    few, many = (salt_and_pepper(constant(0.5), p, SEEDS) for p in (0.2, 0.6))
    hit = few != 0.5
    assert torch.equal(few[hit], many[hit])


@pytest.mark.parametrize("side", [0, 1, 7, 10])
def test_missing_region_is_one_square_in_all_frames(side):
    images = torch.ones(300, 2, 3, 10, 14)
    result = missing_region(images, side, torch.arange(300))
    assert torch.equal(images, torch.ones_like(images))
    corners = set()
    for sample in result.numpy():
        missing = sample == 0
        assert (missing == missing[0, 0]).all()
        assert missing[0, 0].sum() == side * side
        if side:
            top, left = np.argwhere(missing[0, 0]).min(0)
            assert missing[0, 0, top : top + side, left : left + side].all()
            corners.add((top, left))
    if side:
        assert {top for top, _ in corners} == set(range(10 - side + 1))
        assert {left for _, left in corners} == set(range(14 - side + 1))


@pytest.mark.parametrize("side", [-1, 11])
def test_region_larger_than_the_image(side):
    with pytest.raises(UserError, match=rf"side={side}: a missing region must be 0 to 10 pixels in 10x14"):
        missing_region(torch.ones(1, 2, 1, 10, 14), side, torch.arange(1))


def test_gaussian_noise_is_another_in_every_frame():
    noise = gaussian(constant(0.5), 0.1, SEEDS) - 0.5
    assert abs(np.corrcoef(noise[:, 0].flatten(), noise[:, 1].flatten())[0, 1]) < 0.05
