import csv

import numpy as np
from PIL import Image

from healing_mnist.preview import SETS, preview


def test_draws_a_row_for_each_set_with_its_numbers(tmp_path):
    picture = preview(place=tmp_path)
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
