"""Draw the Healing MNIST image sets for the documentation: ``python -m healing_mnist.preview [data.source=mnist ...]``.

``docs/figures/healing_images.png`` has a row for each set of conf/data, one image of each class in it; the angles and
the sides of the squares are in ``healing_images.csv``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from healing_mnist import cli
from healing_mnist.config import ROOT, compose

SETS = {
    "images": "plain",
    "healing_constant_square": "constant",
    "healing_square": "square",
    "healing_rotation": "rotation",
    "healing_both": "both",
    "healing_images": "final mix",
}


def preview(overrides: Sequence[str] = (), place: Path = ROOT / "docs/figures") -> Path:
    """Draw the sets with the overrides given; returns the path of the picture."""
    import torch
    from torch.nn import functional as F

    from healing_mnist.build import build_data
    from healing_mnist.callbacks.figures import image_grid, save

    images, captions, table = [], [], []
    for name, title in SETS.items():
        data = build_data(compose([f"data={name}", *overrides]))
        data.setup()
        labels = data.tables["train"]["label"]
        rows = torch.stack([(labels == label).nonzero()[0, 0] for label in range(data.num_classes)])
        batch = data.batch("train", rows)
        none = torch.zeros(len(rows))
        angles, sides = (batch.attributes.get(key, none).tolist() for key in ("angle", "square"))
        images.append(list(F.pad(batch.input, (1, 1, 1, 1), value=0.6)))  # a frame, or white squares melt into the page
        captions.append([_caption(angle, side) for angle, side in zip(angles, sides, strict=True)])
        table += [
            {"set": title, "class": label, "angle": round(angle, 2), "square": int(side)}
            for label, (angle, side) in enumerate(zip(angles, sides, strict=True))
        ]
    figure = image_grid(
        images, row_labels=list(SETS.values()), captions=captions, title="Healing MNIST images", cell=0.7
    )
    save(place, "healing_images", figure, table)
    return place / "healing_images.png"


def _caption(angle: float, side: float) -> str:
    return ", ".join([f"{angle:.0f}°"] * (angle > 0) + [f"{side:.0f} px"] * (side > 0)) or "as it is"


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
    else:
        print(cli.guarded(lambda: preview(sys.argv[1:])))
