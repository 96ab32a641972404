"""Healing MNIST sequences against a NumPy and SciPy loop, the tables against what the report's Table 4 says."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from healing_mnist.checks import UserError, problems_of
from healing_mnist.config import compose, plain
from healing_mnist.data.sequences import HealingSequences, square_sides
from healing_mnist.tasks.squares import square_size

SETS = ["const_plain", "const_fixed_square", "const_grow_30", "const_grow", "var_plain", "var_grow_3", "var_grow"]


def make(split="train", rows=None, **settings):
    data = HealingSequences(**{"num_sequences": 300, "num_eval_sequences": 40, **settings})
    data.setup()
    index = torch.arange(len(data.tables[split]["index"])) if rows is None else torch.as_tensor(rows)
    return data, data.batch(split, index)


def slow_frame(image, angle, time, sides):
    """One frame: rotate the original by angle * time, paint the square."""
    turned = ndimage.rotate(image.astype(np.float64) / 255, angle * time, order=1, reshape=False)
    for y in range(sides[time]):
        for x in range(sides[time]):
            turned[y, x] = 1.0
    return turned


def slow_sides(length, count, start, size, growth):
    """Grow by a step each frame up to the middle, then the same sizes backwards."""
    half = [size + growth * k for k in range((count + 1) // 2)]
    episode = half + half[::-1][count % 2 :]
    assert len(episode) == count
    return ([0] * start + episode + [0] * length)[:length]


@pytest.mark.parametrize("count", range(1, 8))
def test_square_grows_then_shrinks(count):
    found = square_sides(torch.tensor(count), torch.tensor(2), torch.arange(12), size=3, growth=2)
    assert found.tolist() == slow_sides(12, count, 2, 3, 2)


def test_no_square():
    assert square_sides(torch.tensor(0), torch.tensor(-1), torch.arange(6), 3, 2).tolist() == [0] * 6


@pytest.mark.parametrize(
    "settings",
    [
        {"squares": "random", "growth": 2, "length": (3, 6)},
        {"squares": 3, "square_size": 5, "angles": [30], "length": 6, "horizon": 2},
        {"length": (4, 5), "angles": [10.5, 200.0], "squares": 2, "start": 1},
        {"squares": "random", "growth": 1, "start": "anywhere"},
    ],
)
def test_frames_are_those_of_a_loop(settings):
    data, batch = make(rows=range(25), **settings)
    horizon = settings.get("horizon", 1)
    for i in range(25):
        image = data.images[data.tables["train"]["image"][i].long(), 0].numpy()
        row = {name: value[i].item() for name, value in batch.attributes.items()}
        length, angle = row["length"], row["angle"]
        size, growth = settings.get("square_size", 3), settings.get("growth", 0)
        sides = slow_sides(length, row["squares"], row["start"], size, growth)
        frames = np.stack([slow_frame(image, angle, t, sides) for t in range(length)])
        seen = length - horizon
        np.testing.assert_allclose(batch.input[i, :seen, 0], frames[:seen], atol=2e-5)
        np.testing.assert_allclose(batch.target[i, :, 0], frames[seen:], atol=2e-5)
        assert not batch.input[i, seen:].any()  # padding
        assert row["square_size"] == sides[seen]
        assert row["square_in_target"] == any(sides[seen:length])
        if batch.lengths is not None:
            assert batch.lengths[i] == seen
    assert (batch.lengths is None) == isinstance(settings.get("length", 6), int)


@pytest.mark.parametrize("name", SETS)
def test_named_sets_are_those_of_the_report(name):
    config = plain(compose(["experiment=cnn_lstm", f"data/sequences={name}"]).data)
    for note in ("image_shape", "num_classes", "_target_"):
        del config[note]
    data, batch = make(**config | {"num_sequences": 400, "num_eval_sequences": 10})
    table = batch.attributes
    assert set(table["length"].tolist()) == ({6} if name.startswith("const") else {3, 4, 5, 6})
    fixed_angle = name in ("const_fixed_square", "const_grow_30")
    assert set(table["angle"].tolist()) == ({30} if fixed_angle else {30, 45, 60, 75, 90})
    counts = set(table["squares"].tolist())
    if name.endswith("plain"):
        assert counts == {0}
        assert not table["square_in_target"].any()
    else:
        assert counts == ({3} if name in ("const_fixed_square", "var_grow_3") else set(range(1, 7)))
        assert 0 < table["square_in_target"].float().mean() < 1  # it may be there, or not
        assert (table["start"] + table["squares"] <= table["length"]).all()
    if name == "const_fixed_square":
        assert set(table["square_size"].tolist()) == {0, 5}
    elif not name.endswith("plain"):
        assert set(table["square_size"].tolist()) == {0, 3}  # the smallest, as the target is the episode's last frame
        assert data.largest == (5 if name == "var_grow_3" else 7)
    assert data.has_squares == (not name.endswith("plain"))


def test_rows_depend_on_nothing_but_themselves():
    settings = {"length": (3, 6), "squares": "random", "growth": 2, "missing_area": 0.1, "missing_frames": 0.4}
    _, together = make(rows=[5, 9, 5, 200], **settings)
    for place, row in enumerate([5, 9, 5, 200]):
        _, alone = make(rows=[row], **settings)
        assert torch.equal(alone.target[0], together.target[place])
        assert torch.equal(alone.input[0], together.input[place])
        assert torch.equal(alone.observed[0], together.observed[place])


def test_splits_share_no_base_image_and_tables_are_small():
    data, _ = make(num_sequences=5000)
    images = {split: set(table["image"].tolist()) for split, table in data.tables.items()}
    assert not images["train"] & images["val"]
    assert not (images["train"] | images["val"]) & images["test"]
    row = sum(column.element_size() * column[0].numel() for column in data.tables["train"].values())
    assert row <= 24  # bytes: 600,000 sequences take 14 MB


def test_number_of_sequences_follows_the_number_of_images():
    data = HealingSequences(limit=200)
    data.setup()
    assert len(data.tables["train"]["index"]) == 10 * len(data.members["train"]) == 1800
    assert len(data.tables["val"]["index"]) == 200
    uses = data.tables["train"]["image"].long().bincount()
    assert set(uses[uses > 0].tolist()) == {10}  # every image as often as any other


def test_resample_draws_other_rows():
    data, first = make(rows=[0, 1, 2], resample=True)
    data.start_epoch(1)
    assert not torch.equal(data.batch("train", torch.tensor([0, 1, 2])).target, first.target)


def test_input_is_rendered_only_when_asked_for(monkeypatch):
    data, batch = make(rows=[0, 1])
    calls = []
    monkeypatch.setattr(data, "_inputs", lambda *_: calls.append(1) or torch.ones(2, 5, 1, 28, 28))
    batch = data.batch("train", torch.tensor([0, 1]))
    assert batch.target.shape == (2, 1, 1, 28, 28)
    assert not calls
    assert batch.input is batch.input
    assert len(calls) == 1


def test_missing_frames():
    settings = {"length": (3, 6), "missing_frames": 0.5}
    _, whole = make(length=(3, 6))
    _, batch = make(**settings)
    inputs = batch.lengths
    valid = torch.arange(5) < inputs[:, None]
    missing = valid & ~batch.observed
    assert torch.equal(missing.sum(1), inputs // 2)  # half of them, rounded down
    assert missing[inputs == 5].float().mean(0)[:5].min() > 0  # anywhere
    assert not batch.input[missing].any()
    assert torch.equal(batch.seen, valid & batch.observed)
    assert batch.input[batch.seen].amax((1, 2, 3)).min() > 0.5
    assert whole.observed is None


def test_missing_area():
    _, whole = make(rows=range(20))
    data, batch = make(rows=range(20), missing_area=0.25)
    assert data.hole == 14
    assert torch.equal(batch.target, whole.target)
    for i in range(20):
        for t in range(5):
            top, left = data.tables["train"]["hole"][i, t].tolist()
            expected = whole.input[i, t, 0].clone()
            expected[top : top + 14, left : left + 14] = 0
            assert torch.equal(batch.input[i, t, 0], expected)
    places = data.tables["train"]["hole"].reshape(-1, 2)
    assert places.min() == 0
    assert places.max() == 14


def test_reconstruction_has_the_undamaged_input_as_target():
    _, next_frame = make(rows=range(9), length=(3, 5))
    _, batch = make(rows=range(9), length=(3, 5), target="input", missing_area=0.3)
    assert torch.equal(batch.target, next_frame.input)
    assert not torch.equal(batch.input, batch.target)


@pytest.mark.parametrize(
    "settings",
    [
        {"squares": "random", "growth": 2, "length": (3, 6)},
        {"squares": 3, "square_size": 5},
        {"squares": "random", "growth": 2, "start": "anywhere"},
        {"squares": "random", "growth": 0, "length": 4, "horizon": 2},
        {"squares": 0},
    ],
)
def test_determined_is_what_brute_force_over_the_table_finds(settings):
    data, batch = make(num_sequences=3000, **settings)
    horizon = settings.get("horizon", 1)
    ends = {}
    keys = []
    for i in range(len(batch)):
        length, count, start = (batch.attributes[name][i].item() for name in ("length", "squares", "start"))
        sides = slow_sides(length, count, max(start, 0), data.square_size, data.growth)
        keys.append(tuple(sides[: length - horizon]))
        ends.setdefault(keys[-1], set()).add(tuple(side > 0 for side in sides[length - horizon :]))
    expected = [int(len(ends[key]) == 1) for key in keys]
    assert batch.attributes["determined"].tolist() == expected
    if settings["squares"] == 0:
        assert all(expected)


@pytest.mark.parametrize("damage", [{"missing_frames": 0.4}, {"missing_area": 0.1}])
def test_a_damaged_input_is_not_said_to_determine_anything(damage):
    assert "determined" not in make(squares="random", growth=2, **damage)[1].attributes


def test_in_const_grow_only_a_square_that_comes_last_leaves_the_target_open():
    _, batch = make(num_sequences=2000, squares="random", growth=2)
    comes_last = batch.attributes["start"] == 4
    assert torch.equal(batch.attributes["determined"] == 0, comes_last)
    assert comes_last.any()


def test_a_square_that_starts_anywhere_may_be_caught_growing():
    _, batch = make(num_sequences=2000, squares="random", growth=2, start="anywhere")
    assert set(batch.attributes["start"].tolist()) == set(range(6))
    assert set(batch.attributes["square_size"].tolist()) == {0, 3, 5, 7}
    assert torch.equal(square_size(batch.target[:, 0]), batch.attributes["square_size"])


def test_oracle_turns_the_last_frame_once_more():
    data, batch = make(rows=range(30), length=(3, 6), angles=[90], missing_frames=0.4, horizon=2)
    # Quarter turns are exact: without a square the oracle is the target, whichever frame was the last one seen.
    np.testing.assert_allclose(data.oracle(batch), batch.target, atol=2e-3)
    data, batch = make(rows=range(30), squares=3, start=4, length=7)
    angle = batch.attributes["angle"][0].item()
    turned = ndimage.rotate(batch.input[0, 5, 0].double().numpy(), angle, order=1, reshape=False)
    np.testing.assert_allclose(data.oracle(batch)[0, 0, 0], turned, atol=4e-3)


def test_square_size_reads_the_squares_off_true_frames():
    for squares, growth in (("random", 2), (0, 0)):
        _, batch = make(num_sequences=1000, squares=squares, growth=growth)
        assert torch.equal(square_size(batch.target[:, 0]), batch.attributes["square_size"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"length": (6, 3)}, "data.length=\\[6, 3\\]: an empty range"),
        ({"length": 1}, "data.length=1: must be at least 2"),
        ({"length": (1, 4)}, "data.length=\\[1, 4\\]: must be at least 2"),
        ({"squares": 7}, "data.squares=7: more frames than the shortest sequence has \\(data.length=6\\)"),
        ({"squares": 4, "length": (3, 6)}, "data.squares=4: more frames"),
        ({"squares": 3, "start": 4}, "data.start=4: .* at most 3"),
        (
            {"squares": "random", "square_size": 3, "growth": 13},
            "grows to 29 pixels over 6 frames, beyond the image's 28",
        ),
        ({"squares": 1, "square_size": 29}, "data.square_size=29"),
        ({"angles": []}, "data.angles=\\[\\]"),
        ({"horizon": 0}, "data.horizon=0: must be in 1..5"),
        ({"horizon": 3, "length": (3, 6)}, "data.horizon=3: must be in 1..2"),
        ({"missing_frames": 1.0}, "data.missing_frames=1.0: must be in \\[0, 1\\)"),
        ({"missing_area": 1.0}, "data.missing_area=1.0: must be in \\[0, 1\\)"),
        ({"missing_area": 0.99}, "data.missing_area=0.99: a hole with a side of 28 pixels; it must have 1 to 27"),
        ({"missing_area": 0.0003}, "data.missing_area=0.0003: a hole with a side of 0 pixels"),
    ],
)
def test_impossible_settings_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        HealingSequences(**settings)


def test_a_square_that_starts_late_has_no_time_to_grow_beyond_the_image():
    assert HealingSequences(squares="random", start=4, growth=13).largest == 3
    assert not HealingSequences(squares=0, start=9).has_squares


@pytest.mark.parametrize("override", ["data.horizon=0", "data.squares=some", "data.length=[3]", "data.target=last"])
def test_wrong_types_are_found_in_the_configuration(override):
    config = plain(compose(["experiment=cnn_lstm", override]).data)
    key = override.split("=")[0]
    problems = problems_of({k: v for k, v in config.items() if k not in ("image_shape", "num_classes")}, "data")
    assert [problem for problem in problems if problem.startswith(f"{key}=")]


def test_base_images_are_taken_in_random_order_each_once_a_pass():
    data, _ = make(num_sequences=2000)
    members, images = data.members["train"].tolist(), data.tables["train"]["image"].tolist()
    assert sorted(images[: len(members)]) == sorted(members)
    assert images[: len(members)] != members
