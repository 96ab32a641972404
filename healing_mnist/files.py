"""Files that are whole or absent, rows as CSV, and folders that may be emptied."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from healing_mnist.checks import UserError

KEPT = {".lock", ".holder", "job.log", "trial.json"}  # what others hold open or have put there


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


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises FileNotFoundError, and UserError where it is damaged."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:  # not JSON, or no text at all
        raise UserError(f"{path}: damaged ({error}); delete it, and what wrote it can write it again") from error


def read_metrics(place: Path) -> dict[str, Any]:
    """What metrics.json in the folder of a run says. Raises FileNotFoundError, and UserError where it is damaged."""
    found = read_json(path := place / "metrics.json")
    if not isinstance(found, dict) or not all(isinstance(found.get(key), dict) for key in ("best", "metrics")):
        raise UserError(f"{path}: damaged (it holds no metrics of a run); delete it, and the run ends again")
    return found


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as the text of a CSV file; its columns are their keys, in the order in which they first appear."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def may_be_emptied(place: Path, proof: str, setting: str) -> set[str]:
    """Names of what ``fresh=true`` deletes in a folder.

    Raises UserError where `proof`, the file that marks the folder as ours, is missing beside other files.
    """
    found = {path.name for path in place.iterdir()} - KEPT if place.exists() else set()
    if found and proof not in found:
        raise UserError(
            f"{setting}={place}: fresh=true would delete what is there, but it holds no {proof}. "
            "Choose another folder, or empty it yourself."
        )
    return found


def empty(place: Path, proof: str, setting: str) -> None:
    """Delete what is in a folder, for ``fresh=true``; refused as `may_be_emptied` says."""
    for name in may_be_emptied(place, proof, setting):
        path = place / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
