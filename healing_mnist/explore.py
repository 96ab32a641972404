"""Look at a data set without training anything: ``python -m healing_mnist.explore data.source=mnist [data.limit=...]``.

Figures and tables (`callbacks/data_overview.py`) lie in ``<output_dir>/data/<what was said>/figures``. N6 and N3 have
figures of their own: ``data=n6 analysis=n6_data``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from healing_mnist import cli
from healing_mnist.checks import UserError
from healing_mnist.config import compose, folder_name, key_of, settings_of
from healing_mnist.imports import importing


def explore(overrides: Sequence[str] = ()) -> Path:
    """Draw the data that `overrides` describe, `data=images analysis=data` unless they or an experiment say otherwise.

    Returns the folder of the figures.
    """
    with importing():
        import lightning as L
        import torch
        from hydra.utils import instantiate

        from healing_mnist.build import build_data, check_groups
        from healing_mnist.runs import hush
        from healing_mnist.tryout import check_data, check_needs

    hush()
    whole = any(key_of(override) == "experiment" for override in overrides)  # which brings its data
    cfg = compose([*([] if whole else ["~experiment", "data=images"]), "analysis=data", *overrides])
    if not cfg.get("analysis"):
        raise UserError("analysis=none: nothing to draw; use analysis=data, or n6_data for N6 and N3")
    check_groups(cfg, "data", "analysis")
    place = Path(cfg.output_dir) / "data" / folder_name(settings_of(overrides))
    data = build_data(cfg)
    data.setup()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", devices=1, default_root_dir=place, **quiet)
    overviews = [instantiate(node, _convert_="all") for node in cfg.analysis.values()]
    for overview in overviews:
        if not hasattr(overview, "publish"):
            raise UserError(
                f"analysis: {type(overview).__name__} draws what a network makes; use analysis=data or n6_data"
            )
        batch = data.batch("train", torch.arange(1))
        try:
            check_needs(overview, "analysis", "draws", data, batch)
        except UserError as error:
            if batch.target.ndim == 4:
                raise
            others = "N6 and N3 by data=n6 analysis=n6_data, Healing MNIST by `python -m healing_mnist.preview`"
            raise UserError(f"{error}. Sequences are drawn elsewhere: {others}") from None
    check_data(overviews, data)
    for overview in overviews:
        overview.publish(trainer, data)
    return place / "figures"


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
    else:
        cli.start_logging()
        print(f"Figures: {cli.guarded(lambda: explore(sys.argv[1:]))}")
