import functools
import hashlib
import http.server
import logging
import subprocess
import sys
import threading
import time

import pytest
from idx_files import NAMES, four_arrays, write_four

from healing_mnist.checks import UserError
from healing_mnist.data import download, sources
from healing_mnist.data.download import fetch
from healing_mnist.data.sources import fashion_mnist


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A mirror on this machine with four small files; `url`, `folder` and the names that were `asked` for."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "mirror"
    write_four(folder, four_arrays())

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            time.sleep(running.delay)
            super().do_GET()

        def log_request(self, code="-", size="-"):
            running.asked.append(self.path.lstrip("/"))

        def log_error(self, *args):
            pass

    handler = functools.partial(Handler, directory=str(folder))
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    running.delay = 0.0
    running.asked, running.folder, running.url = [], folder, f"http://127.0.0.1:{running.server_port}/"
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


NOBODY = "http://127.0.0.1:9/"  # where nothing listens


@pytest.fixture
def source(server, monkeypatch):
    """`source(cache)` loads Fashion-MNIST from the mirror."""
    checksums = {f"{name}.gz": md5(server.folder / f"{name}.gz") for name in NAMES}
    monkeypatch.setattr(fashion_mnist, "MD5", checksums)
    monkeypatch.setattr(fashion_mnist, "MIRRORS", (NOBODY, server.url))
    return lambda cache: sources.load("fashion_mnist", cache=cache)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_fetches_once_from_the_mirror_that_answers(source, server, tmp_path):
    base = source(tmp_path / "cache")
    assert base.train_images.shape == (6, 1, 28, 28)
    assert sorted(server.asked) == sorted(f"{name}.gz" for name in NAMES)
    again = source(tmp_path / "cache")
    assert again.train_images.equal(base.train_images)
    assert len(server.asked) == 4


def test_a_damaged_copy_in_the_cache_is_removed_and_fetched_again(source, server, tmp_path, caplog):
    source(tmp_path / "cache")
    file = tmp_path / "cache" / "fashion_mnist" / f"{NAMES[2]}.gz"
    good = file.read_bytes()
    file.write_bytes(good[:100])
    with caplog.at_level(logging.WARNING):
        source(tmp_path / "cache")
    assert file.read_bytes() == good
    assert server.asked.count(file.name) == 2
    assert str(file) in caplog.text
    assert "fetched again" in caplog.text


def test_without_a_network_the_message_says_what_was_tried_and_what_helps(server, tmp_path):
    with pytest.raises(UserError) as error:
        fetch("absent.gz", "0" * 32, (NOBODY, server.url), tmp_path / "cache")
    message = str(error.value)
    assert f"{NOBODY}absent.gz: ConnectionError" in message
    assert f"{server.url}absent.gz: HTTP 404" in message
    assert "data.root=FOLDER" in message
    assert "data.source=digits" in message


def test_a_file_with_a_wrong_checksum_never_appears(server, tmp_path):
    name = f"{NAMES[0]}.gz"
    with pytest.raises(UserError, match="wrong checksum"):
        fetch(name, "0" * 32, (server.url,), tmp_path)
    assert not (tmp_path / name).exists()


def test_a_complete_cache_need_not_be_writable(source, tmp_path, monkeypatch):
    base = source(tmp_path / "cache")

    def read_only(*_):
        raise PermissionError("read-only file system")

    monkeypatch.setattr(download, "FileLock", read_only)
    assert source(tmp_path / "cache").train_images.equal(base.train_images)


def test_a_cache_that_cannot_be_written_is_one_message(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"data\.cache: cannot write"):
        fetch(f"{NAMES[0]}.gz", "0" * 32, (server.url,), tmp_path / "file" / "cache")


def test_processes_that_start_together_fetch_once(server, tmp_path):
    server.delay = 1.0  # long enough for the others to find nothing there yet
    name = f"{NAMES[0]}.gz"
    program = (
        "import sys; from pathlib import Path; from healing_mnist.data.download import fetch;"
        f"print(fetch({name!r}, {md5(server.folder / name)!r}, ({server.url!r},), Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.strip() == str(tmp_path / "cache" / name)
    assert server.asked == [name]
    assert md5(tmp_path / "cache" / name) == md5(server.folder / name)
