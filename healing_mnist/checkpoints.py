"""Checkpoints that are whole or absent, and load without a yaml."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from healing_mnist.checks import UserError
from healing_mnist.files import atomic_write


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or absent: a killed process leaves the last one readable."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        atomic_write(Path(path), buffer.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint as plain data, on the CPU. Raises UserError where it is missing or damaged."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no checkpoint here") from None
    except Exception as error:
        raise UserError(f"{path}: not a readable checkpoint ({type(error).__name__}); it was left in place") from error
    if not isinstance(found, dict) or "state_dict" not in found:
        raise UserError(f"{path}: not a readable checkpoint (it has no state_dict); it was left in place")
    return found


def load_state(module: torch.nn.Module, state: Mapping[str, Any], path: Path) -> None:
    """Load all of `state` into `module`, or say which entries do not fit."""
    own = module.state_dict()
    wrong = [f"{key}: not in the file" for key in own if key not in state]
    wrong += [f"{key}: not in this model" for key in state if key not in own]
    wrong += [
        f"{key}: {tuple(value.shape)} in the file, {tuple(own[key].shape)} in this model"
        for key, value in state.items()
        if key in own and own[key].shape != value.shape
    ]
    if wrong:
        more = [f"... and {len(wrong) - 5} more"] * (len(wrong) > 5)
        raise UserError("\n  ".join([f"{path}: a checkpoint of another model:", *wrong[:5], *more]))
    module.load_state_dict(state)
