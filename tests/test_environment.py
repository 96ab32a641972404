"""What a run writes down of machine and code."""

import json
import platform
import subprocess
from pathlib import Path

import torch

from healing_mnist.environment import write_environment

HERE = Path(__file__).parent


def test_a_run_says_with_what_it_was_computed(tmp_path):
    write_environment(tmp_path, seconds=1.234)
    found = json.loads((tmp_path / "environment.json").read_text())
    assert found["seconds"] == 1.23
    assert found["python"] == platform.python_version()
    assert found["packages"]["torch"] == torch.__version__
    assert found["machine"]["threads"] == torch.get_num_threads()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True)
    assert found["commit"] == (commit.stdout.strip() or None)
