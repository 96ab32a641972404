"""Files that are whole or absent; checkpoints that load by themselves."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from healing_mnist.checks import UserError


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write a file so that whoever looks sees the old one or the whole new one, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(partial, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or absent: a killed process leaves the last one readable."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        atomic_write(Path(path), buffer.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint as plain data, on the CPU. Raises UserError when there is none or it is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no checkpoint here") from None
    except Exception as error:
        raise UserError(f"{path}: not a readable checkpoint ({type(error).__name__}); it was left in place") from error


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
