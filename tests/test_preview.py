import csv

import numpy as np
from PIL import Image

from healing_mnist.preview import SEQUENCE_SETS, SETS, preview, preview_sequences


def test_draws_a_row_for_each_set_with_its_numbers(tmp_path):
    picture = preview([], tmp_path)
    assert np.asarray(Image.open(picture)).std() > 20
    rows = list(csv.DictReader((tmp_path / "healing_images.csv").open()))
    assert len(rows) == 10 * len(SETS)
    touched = {name: {"angle": 0, "square": 0} for name in SETS.values()}
    for row in rows:
        for key in ("angle", "square"):
            touched[row["set"]][key] += float(row[key]) > 0
    assert touched["plain"] == {"angle": 0, "square": 0}
    assert touched["rotation"]["angle"] > 0 == touched["rotation"]["square"]
    assert touched["constant"]["square"] > 0 == touched["constant"]["angle"]
    assert touched["both"]["angle"] == touched["both"]["square"] > 0


def test_classes_that_a_few_images_lack_are_left_out(tmp_path):
    preview(["data.limit=12"], tmp_path)
    rows = list(csv.DictReader((tmp_path / "healing_images.csv").open()))
    classes = [row["class"] for row in rows if row["set"] == "plain"]
    assert 1 < len(classes) < 10
    assert classes == sorted(set(classes))


def test_draws_sequences_of_each_set_with_their_numbers(tmp_path):
    picture = preview_sequences(["data.num_eval_sequences=20"], tmp_path, count=2)
    assert np.asarray(Image.open(picture)).std() > 20
    rows = list(csv.DictReader((tmp_path / "healing_sequences.csv").open()))
    assert [row["set"] for row in rows] == [name for name in SEQUENCE_SETS for _ in range(2)]
    assert {row["squares"] for row in rows if row["set"] == "var_grow_3"} == {"3"}
    with Image.open(tmp_path / "healing_sequences.gif") as moving:
        assert moving.n_frames == 6
        assert moving.size[0] > 2 * moving.size[1]  # seven sets side by side, two sequences each
