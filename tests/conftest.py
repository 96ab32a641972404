"""Shared by all tests: one thread each, no network, everything written below a temporary folder."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; tests run side by side

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def fast():
    """Overrides that make a run last a second or two."""
    return [
        "trainer=cpu",
        "analysis=none",
        "logger=none",
        "data.limit=256",
        "data.batch_size=64",
        "trainer.max_epochs=2",
    ]


@pytest.fixture
def worst_chosen(fast):
    """Overrides for three epochs of which the first, which is the worst, is chosen."""
    return ["experiment=autoencoder", *fast, "trainer.max_epochs=3", "callbacks.checkpoint.mode=max"]


@pytest.fixture
def train(tmp_path):
    """`train(*overrides)` runs one training below the test's folder, in this process, and returns its Result."""
    from healing_mnist import runs
    from healing_mnist.config import compose

    def run(*overrides):
        overrides = [f"output_dir={tmp_path}", *overrides]
        return runs.train(compose(overrides), overrides)

    return run


@pytest.fixture
def command():
    """`command("train.py", ...)` as a list for subprocess, with this interpreter."""

    def build(script, *arguments):
        return [sys.executable, str(ROOT / script), *arguments]

    return build
