"""Look at a data set without training anything: ``python -m healing_mnist.explore data.source=mnist [data.limit=...]``.

Figures and tables (`callbacks/data_overview.py`) lie in ``<output_dir>/data/<source>/figures``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from healing_mnist import cli
from healing_mnist.config import compose


def explore(overrides: Sequence[str] = ()) -> Path:
    """Draw the data that `overrides` describe (``data=images`` unless they say otherwise); returns the folder."""
    import lightning as L

    from healing_mnist.build import build_data
    from healing_mnist.callbacks.data_overview import DataOverview

    cfg = compose(["data=images", *overrides])
    place = Path(cfg.output_dir) / "data" / cfg.data.source
    data = build_data(cfg)
    data.setup()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    DataOverview().publish(L.Trainer(accelerator="cpu", devices=1, default_root_dir=place, **quiet), data)
    return place / "figures"


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
    else:
        print(f"Figures: {cli.guarded(lambda: explore(sys.argv[1:]))}")
