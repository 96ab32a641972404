import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde

from healing_mnist.callbacks import data_overview
from healing_mnist.data import sources
from healing_mnist.explore import explore


def images(count=40, channels=3):
    generator = torch.Generator().manual_seed(0)
    grey = torch.randint(256, (count, 1, 6, 5), generator=generator)
    noise = torch.randint(-40, 40, (count, channels, 6, 5), generator=generator)
    return (grey + noise).clamp(0, 255).to(torch.uint8)


def test_statistics_equal_numpys():
    pixels = images()
    rows = data_overview.statistics(data_overview.pixel_counts(pixels))
    red, green, blue = pixels.numpy().swapaxes(0, 1)
    expected = {"all": pixels.numpy(), "red": red, "green": green, "blue": blue}
    assert [row["channel"] for row in rows] == list(expected)
    for row in rows:
        values = expected[row["channel"]].astype(float)
        assert row["mean"] == pytest.approx(values.mean())
        assert row["sd"] == pytest.approx(values.std())
        assert row["mean_01"] == pytest.approx((values / 255).mean())
        assert row["variance_01"] == pytest.approx((values / 255).var())
        assert row["pixels"] == values.size


def test_density_equals_scipys():
    values = np.random.default_rng(0).normal(128, 30, 3000).round().clip(0, 255).astype(int)
    found = data_overview.density(np.bincount(values, minlength=256))
    np.testing.assert_allclose(found, gaussian_kde(values)(np.arange(256)), rtol=1e-6)


def test_channel_correlation_equals_numpys():
    pixels = images()
    _, table = data_overview.channel_correlation(pixels)
    expected = np.corrcoef(pixels.numpy().swapaxes(0, 1).reshape(3, -1))
    np.testing.assert_allclose([[row[c] for c in ("red", "green", "blue")] for row in table], expected, atol=1e-9)


def test_principal_components_find_the_axis_of_variance():
    spread = torch.linspace(0, 255, 50).round().to(torch.uint8)
    pixels = spread.view(50, 1, 1, 1).expand(50, 1, 4, 4)
    _, table = data_overview.principal_components(pixels, torch.zeros(50).long(), ["only"], 50, torch.Generator())
    first = sorted(row["component_1"] for row in table)
    expected = (spread.double() / 255 - (spread.double() / 255).mean()) * 4  # 16 equal pixels
    np.testing.assert_allclose(first, sorted(expected.tolist()), atol=1e-4)
    assert all(abs(row["component_2"]) < 1e-3 for row in table)


def test_explore_draws_a_source_without_a_run(tmp_path):
    place = explore(["data.limit=200", f"output_dir={tmp_path}"])
    assert place == Path(tmp_path, "data", "limit=200", "figures")
    names = {path.stem for path in place.glob("*.png")}
    assert names == {"data_samples", "data_classes", "data_pixels", "data_pca"}  # grey images have one channel
    with (place / "data_classes.csv").open() as file:
        assert sum(int(row["images"]) for row in csv.DictReader(file)) == 200


def test_explore_draws_what_a_network_is_given(tmp_path):
    squares = ["data=healing_square", "data.square_ratio=1", "data.square_size=10"]
    means = {}
    for name, data in (("plain", ["data=images"]), ("squares", squares)):
        place = explore([*data, "data.limit=200", f"output_dir={tmp_path / name}"])
        with (place / "data_statistics.csv").open() as file:
            means[name] = float(next(csv.DictReader(file))["mean"])
    base = sources.load("digits")
    used = torch.randperm(len(base.train_images), generator=torch.Generator().manual_seed(0))[:200]
    images = base.train_images[used].double()
    assert means["plain"] == pytest.approx(images.mean().item())
    images[:, :, :10, :10] = 255
    assert means["squares"] == pytest.approx(images.mean().item())


def test_explore_draws_n6(tmp_path):
    small = ["data.sequences=20", "data.novel_sequences=4", "data.size=18"]
    place = explore(["data=n6", "analysis=n6_data", f"output_dir={tmp_path}", *small])
    assert {"n6_sequences", "n3_sequences", "transitions"} <= {path.stem for path in place.glob("*.png")}
