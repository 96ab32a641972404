"""Draw the Healing MNIST sets: ``python -m healing_mnist.preview [output_dir=outputs] [data.source=mnist ...]``.

``healing_images.png`` in its folder ``figures`` has a row for each set of conf/data, one image of each class in it; the
angles and the sides of the squares are in ``healing_images.csv``. ``healing_sequences.png`` and its csv have two
sequences of each set of conf/data/sequences, ``healing_sequences.gif`` plays them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from healing_mnist import cli
from healing_mnist.config import compose

SETS = {
    "images": "plain",
    "healing_constant_square": "constant",
    "healing_square": "square",
    "healing_rotation": "rotation",
    "healing_both": "both",
    "healing_images": "final mix",
}
SEQUENCE_SETS = (
    "const_plain",
    "const_fixed_square",
    "const_grow_30",
    "const_grow",
    "var_plain",
    "var_grow_3",
    "var_grow",
)


def preview(overrides: Sequence[str], place: Path) -> Path:
    """Draw the sets with the overrides given; returns the path of the picture."""
    import torch

    from healing_mnist.build import build_data
    from healing_mnist.callbacks.figures import image_grid, save

    images, captions, table = [], [], []
    for name, title in SETS.items():
        data = build_data(compose([f"data={name}", *overrides]))
        data.setup()
        labels = data.tables["train"]["label"]
        classes = labels.unique()  # of few images, perhaps not all there are
        rows = torch.stack([(labels == label).nonzero()[0, 0] for label in classes])
        batch = data.batch("train", rows)
        none = torch.zeros(len(rows))
        angles, sides = (batch.attributes.get(key, none).tolist() for key in ("angle", "square"))
        images.append(list(batch.input))
        captions.append([_caption(angle, side) for angle, side in zip(angles, sides, strict=True)])
        table += [
            {"set": title, "class": label, "angle": round(angle, 2), "square": int(side)}
            for label, angle, side in zip(classes.tolist(), angles, sides, strict=True)
        ]
    figure = image_grid(
        images, row_labels=list(SETS.values()), captions=captions, title="Healing MNIST images", cell=0.7
    )
    save(place, "healing_images", figure, table)
    return place / "healing_images.png"


def _caption(angle: float, side: float) -> str:
    return ", ".join([f"{angle:.0f}°"] * (angle > 0) + [f"{side:.0f} px"] * (side > 0)) or "as it is"


def preview_sequences(overrides: Sequence[str], place: Path, count: int = 2, first: int = 7) -> Path:
    """Draw `count` sequences of each set, from test row `first` on; returns the path of the picture.

    Each row of the grid is a sequence, all its frames, the target last; below the first stands the angle of a step,
    below each the side of its square.
    """
    import torch

    from healing_mnist.build import build_data
    from healing_mnist.callbacks.figures import image_grid, moving_grid, save, save_gif
    from healing_mnist.data.sequences import square_sides

    images, captions, labels, table, moving = [], [], [], [], []
    for name in SEQUENCE_SETS:
        data = build_data(compose(["data=sequences", f"data/sequences={name}", *overrides]))
        data.setup()
        batch = data.batch("test", torch.arange(first, first + count))
        for i in range(count):
            row = {key: value[i].item() for key, value in batch.attributes.items()}
            frames = torch.cat((batch.input[i, : row["length"] - data.horizon], batch.target[i]))
            times = torch.arange(len(frames))
            count_and_start = (torch.tensor(row[key]) for key in ("squares", "start"))
            sides = square_sides(*count_and_start, times, data.square_size, data.growth).tolist()
            empty = [None] * (data.longest - len(frames))
            images.append([*frames, *empty])
            captions.append([f"{side} px" if side else None for side in sides] + empty)
            captions[-1][0] = _caption(row["angle"], sides[0])
            labels.append(name if i == 0 else "")
            table.append({"set": name, **row})
            moving.append(frames)
    columns = [f"frame {t}" for t in range(max(map(len, images)))]
    figure = image_grid(images, labels, columns, captions, "Healing MNIST sequences, the last frame is the target", 0.6)
    save(place, "healing_sequences", figure, table)
    rows = [moving[i::count] for i in range(count)]
    film = moving_grid(rows, None, list(SEQUENCE_SETS), "Healing MNIST sequences, frame {}")
    save_gif(place, "healing_sequences", film, seconds=0.7)
    return place / "healing_sequences.png"


def draw_all(overrides: Sequence[str]) -> tuple[Path, Path]:
    """Both pictures, in the folder ``figures`` of `output_dir`."""
    place = Path(compose(overrides).output_dir) / "figures"
    return preview(overrides, place), preview_sequences(overrides, place)


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
    else:
        print(*cli.guarded(lambda: draw_all(sys.argv[1:])), sep="\n")
