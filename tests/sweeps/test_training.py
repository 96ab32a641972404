"""Real trainings in a sweep."""

import csv
import json

from healing_mnist import runs
from healing_mnist.config import compose

SMALL = [
    "experiment=joint",
    "trainer=cpu",
    "analysis=none",
    "logger=none",
    "data.limit=200",
    "data.batch_size=64",
    "trainer.max_epochs=2",
]


def train(cfg):
    return runs.train(cfg, runs.overrides_of_this_job()).objective


def test_a_job_computes_what_train_computes(sweep, tmp_path):
    points = {"3": {}, "4": {}}
    done = sweep(*SMALL[1:], "model.latent_dim=3,4", "seed=5,6", task=train)
    assert done.code == 0, done.err
    for dim in points:
        alone = runs.train(compose([*SMALL, f"model.latent_dim={dim}", "seed=6", f"run_dir={tmp_path / dim}"]))
        found = json.loads((done.folder / f"latent_dim={dim},seed=6" / "metrics.json").read_text())
        assert found["metrics"] == alone.metrics
        assert found["objective"] == alone.objective
    with open(done.folder / "table.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["model.latent_dim"] for row in rows] == ["3", "4"]
    assert all(row["finished"] == "2" for row in rows)
