"""Fetch a file once into the cache: checksum, mirrors, and a lock for processes that start together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pooch
from filelock import FileLock

from healing_mnist.checks import UserError

log = logging.getLogger(__name__)
ROUNDS = 2  # times every mirror is tried
TIMEOUT = 20  # seconds without an answer


def fetch(name: str, md5: str, mirrors: Sequence[str], folder: Path) -> Path:
    """Path of `folder`/`name`, downloaded from the first mirror (a URL that `name` is appended to) that has it.

    The file appears under its name only when complete and verified. A damaged copy is removed and fetched again.

    Raises:
        UserError: the cache cannot be written, or no mirror gave the file.
    """
    path = folder / name
    if path.exists() and pooch.file_hash(str(path), alg="md5") == md5:
        return path  # also where nothing can be written
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):
            damaged = path.exists() and pooch.file_hash(str(path), alg="md5") != md5
            if damaged:
                log.warning("%s is damaged (its checksum is wrong); it is removed and fetched again.", path)
                path.unlink()
            if not path.exists():
                _download(name, md5, mirrors, folder, damaged)
    except OSError as error:
        raise UserError(f"data.cache: cannot write {folder} ({error}); name another folder with data.cache") from None
    return path


def _download(name: str, md5: str, mirrors: Sequence[str], folder: Path, damaged: bool) -> None:
    from requests import RequestException  # an OSError; pooch's own dependency

    failures = {}
    for url in [mirror + name for _ in range(ROUNDS) for mirror in mirrors]:
        downloader = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT)
        try:
            pooch.retrieve(url, known_hash=f"md5:{md5}", fname=name, path=folder, downloader=downloader)
            return
        except RequestException as error:
            failures[url] = f"HTTP {error.response.status_code}" if error.response is not None else type(error).__name__
        except ValueError:
            failures[url] = "the file sent has a wrong checksum"
    tried = "\n".join(f"  {url}: {reason}" for url, reason in failures.items())
    raise UserError(
        f"{name} is not in {folder}{' (a damaged copy was removed)' if damaged else ''} and could not be fetched. "
        f"Tried:\n{tried}\nWithout a network, put the files into a folder and name it with data.root=FOLDER, or use "
        "data.source=digits, which needs none."
    )
