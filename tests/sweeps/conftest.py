"""Sweeps in this process: the libraries are imported once for all tests."""

import sys
from types import SimpleNamespace

import pytest
import trivial

from healing_mnist import cli
from healing_mnist.sweeps.pool import PRELOAD, warm_up


@pytest.fixture(autouse=True, scope="session")
def fork_server():
    """There is one fork server in a process; let it be the one that has imported what trainings need."""
    warm_up(PRELOAD)


@pytest.fixture
def sweep(monkeypatch, capfd, tmp_path):
    """Run a sweep of trivial jobs into ``tmp_path/sweep``; returns exit code, stdout, stderr and the folder."""

    def call(*arguments, task=trivial.work, folder=tmp_path / "sweep"):
        fixed = ["experiment=joint", f"hydra.sweep.dir={folder}"] if folder else ["experiment=joint"]
        monkeypatch.setattr(sys, "argv", ["train.py", *fixed, *arguments, "--multirun"])
        capfd.readouterr()
        code = 0
        try:
            cli.main(task, "train")
        except SystemExit as error:
            code = error.code
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err, folder=folder)

    return call
