"""Robustness: only inputs are damaged, at every level alike; errors as a loop finds them."""

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

from healing_mnist.batch import Batch, Output
from healing_mnist.callbacks import robustness
from healing_mnist.callbacks.robustness import Robustness, draw_together
from healing_mnist.checks import UserError
from healing_mnist.data import corruptions
from healing_mnist.tasks.next_frame import NextFrame
from healing_mnist.tasks.reconstruction import Reconstruction


class Dimmer(nn.Module):
    """Predicts the last frame, darker."""

    def forward(self, frames, lengths=None, observed=None, steps=1):
        return Output(image=0.5 * frames[:, -1:].expand(-1, steps, -1, -1, -1))


def render(rows, images):
    """Sequences of three frames, the target all white."""
    frames = torch.stack([images[rows["image"]].float() / (255 * k) for k in (3, 2, 1)], 1)
    return Batch(frames, torch.ones_like(frames[:, :1]), rows["label"], rows["index"])


@pytest.fixture
def measure(two_tests, tmp_path, monkeypatch):
    """Test a `Dimmer` with the callback given, on sequences in the splits near and far."""
    monkeypatch.setattr(two_tests, "render", render)

    def run(callback):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = L.Trainer(accelerator="cpu", default_root_dir=tmp_path, callbacks=[callback], **quiet)
        trainer.test(NextFrame(Dimmer()), two_tests, verbose=False)

    return run


def test_curves(measure, two_tests, read_csv, tmp_path, monkeypatch):
    draw = two_tests.draw
    turned = lambda split, generator: draw(split, generator) | {"image": torch.arange(23).roll(len(split))}  # noqa: E731
    monkeypatch.setattr(two_tests, "draw", turned)  # other images in each split
    measure(Robustness(intensities=3, splits=["far"], rows=12, seed=5))
    rows = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]  # of 23, evenly spread
    images = two_tests.tables["far"]["image"][rows]
    frames = render({"image": images, "label": None, "index": None}, two_tests.images).input
    seeds = torch.tensor(rows) + 5 * 1_000_003
    levels = {name: (0.0, 0.5, 1.0) for name in ("gaussian", "poisson", "salt_and_pepper")}
    levels["missing_region"] = range(7)
    for name, own in levels.items():
        found = read_csv(f"robustness_{name}")
        assert (tmp_path / "figures" / f"robustness_{name}.png").is_file()
        assert len(found) == 3 * len(own)
        for row in found:
            damaged = getattr(corruptions, name)(frames, float(row["level"]), seeds).double().numpy()
            predictions = {"network": 0.5 * damaged[:, -1], "last": damaged[:, -1], "mean": damaged.mean(1)}
            errors = ((predictions[row["predictor"]] - 1) ** 2).mean((1, 2, 3))
            assert (row["split"], row["count"]) == ("far", "12")
            assert float(row["mse"]) == pytest.approx(errors.mean(), rel=1e-5)
            assert float(row["standard_error"]) == pytest.approx(errors.std(ddof=1) / np.sqrt(12), rel=1e-4)
    assert {row["level"] for row in found} == {str(side) for side in range(7)}


def test_all_damages_in_one_figure(measure, read_csv, tmp_path, monkeypatch):
    legends = []

    def draw(rows):
        figure = draw_together(rows)
        legends.extend([text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes)
        return figure

    monkeypatch.setattr(robustness, "draw_together", draw)
    measure(Robustness(noises=["poisson"], intensities=2, max_intensity=0.4, max_side=1, rows=3))
    found = read_csv("robustness")
    assert {(row["split"], row["damage"], float(row["level"])) for row in found} == {
        (split, *point)
        for split in ("near", "far")
        for point in [("poisson", 0.0), ("poisson", 0.4), ("missing_region", 0.0), ("missing_region", 1.0)]
    }
    assert {row["predictor"] for row in found} == {"network"}  # baselines are in the tables of each damage
    for legend, damage in zip(legends, ("poisson", "missing region"), strict=True):
        assert legend == [f"{damage}, NEAR", f"{damage}, FAR", "baseline: last, NEAR", "baseline: mean, NEAR"]
    assert (tmp_path / "figures" / "robustness.png").is_file()


class Same(nn.Module):
    def forward(self, images):
        return Output(image=images)


def test_images_are_measured_too(plain_data, tmp_path, read_csv, monkeypatch):
    def render(rows, images):
        return Batch(color(rows, images), color(rows, images), rows["label"], rows["index"])

    monkeypatch.setattr(plain_data, "render", render)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    damage = Robustness(noises=["gaussian"], intensities=2, max_intensity=0.5, max_side=0, rows=23)
    L.Trainer(accelerator="cpu", default_root_dir=tmp_path, callbacks=[damage], **quiet).test(
        Reconstruction(Same()), plain_data, verbose=False
    )
    images = color({"image": torch.arange(23)}, plain_data.images)
    errors = (corruptions.gaussian(images, 0.5, torch.arange(23)) - images).double().square().mean((1, 2, 3))
    found = {row["level"]: row for row in read_csv("robustness_gaussian")}
    assert float(found["0.0"]["mse"]) == 0
    assert float(found["0.5"]["mse"]) == pytest.approx(errors.mean().item(), rel=1e-5)
    assert float(found["0.5"]["standard_error"]) == pytest.approx(errors.std().item() / 23**0.5, rel=1e-4)


def color(rows, images):
    """Three channels, the second and third ever darker."""
    return torch.cat([images[rows["image"]].float() / (255 * k) for k in (1, 2, 3)], 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_side": 7}, r"robustness.max_side=7: at most 6, the side of the image"),
        ({"splits": ["n6", "near"]}, "robustness.splits: unknown n6; allowed: near, far"),
    ],
)
def test_mistakes_are_said_before_anything_is_measured(two_tests, settings, message):
    with pytest.raises(UserError, match=message):
        Robustness(**settings).check_data(two_tests)


def test_an_intensity_beyond_one_is_refused_by_the_settings():
    from healing_mnist.checks import problems_of

    config = {"_target_": "healing_mnist.callbacks.robustness.Robustness", "max_intensity": 1.5, "noises": ["gamma"]}
    assert len(problems_of(config, "analysis.robustness")) == 2
