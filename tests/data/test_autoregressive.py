"""N6 and N3 end to end on the bundled digits: who may see which frames and base images."""

import logging
import math
from functools import cache

import pytest
import torch

from healing_mnist.checks import UserError, problems_of
from healing_mnist.data.autoregressive import AutoregressiveDigits
from healing_mnist.data.chains import Chain

SMALL = {"sequences": 60, "novel_sequences": 10, "size": 18, "components": 20}
CALM = {"rotation": Chain(0.9, 2.0), "translation": Chain(0.9, 0.2)}  # coarse pixels: jumps stand out less


@cache
def cached(**options):
    data = AutoregressiveDigits(**SMALL | options)
    data.setup()
    return data


def fresh(**options):
    data = AutoregressiveDigits(**SMALL | options)
    data.setup()
    return data


def everything(data, split):
    return data.batch(split, data.tables[split]["index"])


def base_images(data, split):
    sequences = everything(data, split).attributes["sequence"]
    return set(data.sequence_table["image"][sequences].tolist())


class Marked(AutoregressiveDigits):
    """Held-out frames are white from the start, which no rendered frame is and denoising leaves as it is."""

    def _render(self):
        frames = super()._render()
        frames.view(-1, 16, 1, 18, 18)[:, [3, 15]] = 255
        return frames


@pytest.mark.parametrize("variant", ["base", "processed"])
@pytest.mark.parametrize(("window", "horizon"), [(2, 1), (3, 1), (7, 3), (11, 1)])
def test_no_training_or_validation_window_contains_a_held_out_frame(variant, window, horizon):
    data = Marked(variant=variant, window=window, horizon=horizon, **SMALL)
    data.setup()
    for split in ("train", "val"):
        batch = everything(data, split)
        assert len(batch)
        for images in (batch.input, batch.target):
            assert not (images.flatten(2) == 1).all(2).any()


@pytest.mark.parametrize("horizon", [1, 2])
def test_test_windows_predict_the_held_out_frames(horizon):
    data = fresh(window=2 + horizon, horizon=horizon)
    frames = data.images.view(70, 16, 1, 18, 18)
    frames[:, 3] = 251
    frames[:, 15] = 252
    marks = {"n6_interpolation": {251}, "n6_extrapolation": {252}, "n6": {251, 252}}
    for split, expected in marks.items():
        target = (everything(data, split).target * 255).round()
        is_mark = ((target == 251) | (target == 252)).flatten(2).all(2)
        assert is_mark.any(1).all()
        assert set(target[is_mark].flatten().tolist()) == expected
    assert len(everything(data, "n6")) == sum(len(everything(data, split)) for split in list(marks)[:2])
    assert len(everything(data, "n3")) == 10 * (16 - 1 - horizon)


def test_no_base_image_is_shared():
    data = cached()
    images = {split: base_images(data, split) for split in ("train", "val", "n6", "n3")}
    assert {split: len(used) for split, used in images.items()} == {"train": 42, "val": 6, "n6": 12, "n3": 10}
    assert len(set().union(*images.values())) == 70
    assert base_images(data, "n6_interpolation") == base_images(data, "n6_extrapolation") == images["n6"]


def test_sixes_are_trained_on_and_threes_are_new():
    data = cached()
    for split in ("train", "val", "n6", "n6_interpolation", "n6_extrapolation"):
        assert set(everything(data, split).label.tolist()) == {6}
    assert set(everything(data, "n3").label.tolist()) == {3}


def test_without_a_test_fraction_the_training_sequences_are_tested():
    data = cached(test_fraction=0.0)
    assert base_images(data, "n6") == base_images(data, "train")
    assert len(base_images(data, "train")) == 54
    assert not base_images(data, "n6") & (base_images(data, "val") | base_images(data, "n3"))


def test_windows_are_consecutive_frames_of_one_sequence():
    data = cached(window=5, horizon=2)
    for split in ("train", "val", "n6", "n3"):
        batch = everything(data, split)
        assert batch.input.shape[1:] == (3, 1, 18, 18)
        assert batch.target.shape[1:] == (2, 1, 18, 18)
        for i in range(0, len(batch), 7):
            whole = data.whole_sequence(int(batch.attributes["sequence"][i]))
            first = int(batch.attributes["frame"][i]) - 1
            assert torch.equal(batch.input[i], whole[first - 3 : first])
            assert torch.equal(batch.target[i], whole[first : first + 2])


def test_attributes_describe_the_step_into_the_first_target():
    data = cached(anomaly_rate=0.2, window=4, horizon=2)
    table, batch = data.sequence_table, everything(data, "n3")
    for i in range(len(batch)):
        sequence, frame = (int(batch.attributes[name][i]) for name in ("sequence", "frame"))
        before, after = frame - 2, frame - 1
        turned = table["rotation"][sequence, after] - table["rotation"][sequence, before]
        moved = math.dist(table["shift"][sequence, after].tolist(), table["shift"][sequence, before].tolist())
        assert batch.attributes["angle"][i] == pytest.approx(turned.item(), abs=1e-4)
        assert batch.attributes["shift"][i] == pytest.approx(moved, abs=1e-5)
        assert batch.attributes["brightness"][i] == table["brightness"][sequence, after]
        jumps = [table["anomalous"][sequence, t].item() for t in (frame - 3, frame - 2, frame - 1)]
        assert batch.attributes["anomalous"][i].item() == any(jumps)


def test_same_seed_same_bits_and_another_seed_another_data_set():
    first, again, other = cached(), fresh(), fresh(seed=1)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert first.sequence_table["image"].tolist() != other.sequence_table["image"].tolist()


@pytest.mark.parametrize("options", [{}, {"test_fraction": 0.0, "window": 4, "horizon": 2}])
def test_validation_and_test_are_the_same_for_all_variants(options):
    for split in ("val", "n6", "n3"):
        base, processed = (everything(cached(variant=variant, **options), split) for variant in ("base", "processed"))
        assert torch.equal(base.input, processed.input)
        assert torch.equal(base.target, processed.target)


def test_denoised_targets_are_nearer_to_the_truth_and_inputs_stay_noisy():
    size = {"size": 36, "sequences": 20}
    noisy, denoised, truth = (
        everything(cached(**size, **options), "train") for options in ({}, {"variant": "denoised"}, {"noise": 0.0})
    )
    assert torch.equal(noisy.input, denoised.input)
    error, before = ((batch.target - truth.target).square().mean() for batch in (denoised, noisy))
    assert error < 0.5 * before


@pytest.mark.parametrize("horizon", [1, 2])
def test_oracle_is_off_by_the_noise_alone(horizon):
    options = {"window": 4, "horizon": horizon}
    data, silent = cached(**options), cached(noise=0.0, **options)
    for split in ("n6", "n3"):
        batch = everything(silent, split)
        torch.testing.assert_close(silent.oracle(batch), batch.target, atol=0.5 / 255 + 1e-6, rtol=0)  # kept as uint8
        batch = everything(data, split)
        off = batch.target - data.oracle(batch)
        assert abs(off.mean()) < 4 * off.std() / math.sqrt(off.numel())
        assert off.std() < 0.08


def test_cleaning_drops_the_sequences_with_planted_jumps(caplog):
    caplog.set_level(logging.INFO)
    options = {"sequences": 181, "size": 36, **CALM}
    data = fresh(variant="cleaned", **options)
    dropped, kept = data.sequences_of["dropped"], data.sequences_of["train"]
    planted = data.planted(torch.arange(181)).any(1)
    assert planted[dropped].float().mean() > 0.8
    assert planted[dropped].sum() > 0.8 * planted[data.training_sequences()].sum()
    assert set(dropped.tolist()) | set(kept.tolist()) == set(cached(**options).sequences_of["train"].tolist())
    assert set(everything(data, "train").attributes["sequence"].tolist()) == set(kept.tolist())
    assert f"{len(dropped)} of {len(dropped) + len(kept)} training sequences dropped" in caplog.text


def test_outliers_are_judged_without_held_out_frames():
    data = fresh()
    before = data.transitions().distance
    data.images.view(70, 16, -1)[:, [3, 15]] = 255
    assert torch.equal(data.transitions().distance, before)
    assert before.shape == data.planted(data.training_sequences()).shape == (42, 12)


def test_number_of_sequences_follows_the_supply(caplog):
    data = fresh(sequences=400, novel_sequences=183)
    assert len(data.sequence_table["image"]) == 181 + 183
    assert "N6 has 181 sequences instead of 400: data.source=digits has so many images of a 6" in caplog.text
    assert "N3" not in caplog.text


def test_window_that_cannot_predict_frame_4_leaves_interpolation_out(caplog):
    data = fresh(window=10)
    assert data.test_splits == ("n6_extrapolation", "n6", "n3")
    assert "data.window=10: no window predicts frame 4: no n6_interpolation" in caplog.text
    assert set(everything(data, "n6").attributes["frame"].tolist()) == {16}


def test_the_loader_hands_windows_to_the_trainer_as_batches():
    data = cached(variant="base")
    assert [len(loader.dataset) for loader in data.test_dataloader()] == [12, 12, 24, 140]
    assert data.image_shape == (1, 18, 18)
    batch = data.batch("train", next(iter(data.train_dataloader())))
    assert batch.input.dtype == torch.float32
    assert 0 <= batch.input.min() < batch.input.max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 17}, "data.window=17: longer than a sequence, data.frames=16"),
        ({"window": 3, "horizon": 3}, "data.horizon=3: must be below data.window=3"),
        ({"held_out_frame": 16}, "data.held_out_frame=16: must be in 1..15, before the last"),
        ({"window": 12}, "data.window=12: no training windows; the held-out frames 4 and 16 leave at most 11 frames"),
        ({"val_fraction": 0.0}, "data.val_fraction=0, data.test_fraction=0.2: the first must be above 0"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "their sum below 1"),
        ({"source": "cifar10"}, "data.source=cifar10: N6 and N3 are grey"),
    ],
)
def test_settings_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        AutoregressiveDigits(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sequences": 3}, "data.sequences=3: 3 give 2 for training, 0 for validation and 1 for test"),
        ({"variant": "cleaned", "outlier_threshold": 1e-3}, "no training windows left, each of 42 sequences"),
        ({"variant": "cleaned", "components": 400}, "data.components=400: at most 324"),
        ({"noise": math.nan}, "pixels are NaN or infinite"),
        ({"rotation": Chain(0.9, math.inf)}, "pixels are NaN or infinite"),
    ],
)
def test_data_that_cannot_be_made(options, message):
    with pytest.raises(UserError, match=message):
        AutoregressiveDigits(**SMALL | options).setup()


def test_impossible_values_are_found_from_the_signature():
    config = {
        "_target_": "healing_mnist.data.autoregressive.AutoregressiveDigits",
        "anomaly_rate": 1.5,
        "window": 0,
        "noise": math.nan,
        "variant": "clean",
        "resample": True,
        "rotation": {"_target_": "healing_mnist.data.chains.Chain", "persistence": 2, "size": -1},
    }
    assert problems_of(config, "data") == [
        "data.anomaly_rate=1.5: must be a number in [0, 1]",
        "data.window=0: must be an integer at least 1",
        "data.noise=nan: must be a finite number",
        "data.variant=clean: must be one of base, denoised, cleaned, processed",
        "data.resample=True: unknown setting of AutoregressiveDigits",
        "data.rotation.persistence=2: must be a number in [0, 1]",
        "data.rotation.size=-1: must be a number at least 0",
    ]
