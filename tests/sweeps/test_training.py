"""Real trainings in a sweep."""

import csv
import json

import pytest

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
    done = sweep(*SMALL[1:], "model.latent_dim=3,4", task=train)
    assert done.code == 0, done.err
    alone = runs.train(compose([*SMALL, "model.latent_dim=4", f"run_dir={tmp_path / 'alone'}"]))
    found = json.loads((done.folder / "latent_dim=4" / "metrics.json").read_text())
    assert found["metrics"] == pytest.approx(alone.metrics, rel=1e-4)
    assert found["objective"] == pytest.approx(alone.objective, rel=1e-4)
    with open(done.folder / "table.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["model.latent_dim"] for row in rows] == ["3", "4"]
    assert all(row["finished"] == "1" for row in rows)
