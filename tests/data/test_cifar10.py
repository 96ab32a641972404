import hashlib
import tarfile

import numpy as np
import pytest

from healing_mnist.checks import UserError
from healing_mnist.data import sources
from healing_mnist.data.sources import cifar10


@pytest.fixture
def official(tmp_path):
    """A folder in the layout of the official archive with four records a file; returns (folder, records)."""
    random = np.random.default_rng(0)
    folder = tmp_path / "official" / cifar10.FOLDER
    folder.mkdir(parents=True)
    records = {}
    for name in (*cifar10.TRAIN, cifar10.TEST):
        records[name] = random.integers(0, 256, (4, 3073), dtype=np.uint8)
        records[name][:, 0] %= 10
        records[name].tofile(folder / name)
    return folder, records


@pytest.mark.parametrize("inside", [True, False])
def test_reads_records_of_label_and_colour_planes(official, inside, tmp_path):
    folder, records = official
    base = sources.load("cifar10", folder if inside else folder.parent, tmp_path / "cache")
    train = np.concatenate([records[name] for name in cifar10.TRAIN])
    assert base.train_labels.tolist() == train[:, 0].tolist()
    assert base.test_labels.tolist() == records[cifar10.TEST][:, 0].tolist()
    for i, channel, y, x in [(0, 0, 0, 0), (5, 1, 2, 31), (19, 2, 31, 30)]:
        assert base.train_images[i, channel, y, x] == train[i, 1 + channel * 1024 + y * 32 + x]
    assert base.train_images.shape == (20, 3, 32, 32)
    assert base.train_images.is_contiguous()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(3073 * 2 - 1), "6145 bytes, not a whole number of records of 3073"),
        (bytes(3074 * 4), "12296 bytes, not a whole number"),  # CIFAR-100 has two label bytes
        (b"", "holds 0 bytes"),
        (bytes(3073) + bytes([10]) + bytes(3072), "record 1 has label 10, allowed are 0 to 9"),
    ],
)
def test_a_damaged_file_is_named(official, content, message, tmp_path):
    folder, _ = official
    path = folder / "data_batch_3.bin"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        sources.load("cifar10", folder, tmp_path)
    assert str(path) in str(error.value)
    assert path.read_bytes() == content


def test_a_wrong_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        sources.load("cifar10", tmp_path / "nowhere", tmp_path)
    with pytest.raises(UserError, match=r"no data_batch_1\.bin, .* there or in its folder cifar-10-batches-bin$"):
        sources.load("cifar10", tmp_path, tmp_path)
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").touch()
    with pytest.raises(UserError, match="pickled files, the binary archive"):
        sources.load("cifar10", tmp_path, tmp_path)


def pack(folder, archive):
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, cifar10.FOLDER)


def test_a_fetched_archive_is_unpacked_once(official, tmp_path, monkeypatch):
    folder, records = official
    cache = tmp_path / "cache"
    (cache / "cifar10").mkdir(parents=True)
    archive = cache / "cifar10" / cifar10.ARCHIVE
    pack(folder, archive)
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    for _ in range(2):
        base = sources.load("cifar10", None, cache)
        assert base.test_labels.tolist() == records[cifar10.TEST][:, 0].tolist()
        archive.unlink(missing_ok=True)  # the second time the files are there


@pytest.mark.parametrize("keep", [0.5, 0.01])
def test_a_truncated_archive_leaves_nothing_behind(official, keep, tmp_path):
    archive, place = tmp_path / cifar10.ARCHIVE, tmp_path / "cache" / cifar10.FOLDER
    place.parent.mkdir()
    pack(official[0], archive)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError, match=r"cifar-10-binary\.tar\.gz is damaged"):
        cifar10.unpack(archive, place)
    assert not list(place.parent.iterdir())


def test_an_archive_without_a_file_is_refused(official, tmp_path):
    (official[0] / "test_batch.bin").unlink()
    pack(official[0], tmp_path / cifar10.ARCHIVE)
    with pytest.raises(UserError, match=r"test_batch\.bin"):
        cifar10.unpack(tmp_path / cifar10.ARCHIVE, tmp_path / cifar10.FOLDER)
    assert not (tmp_path / cifar10.FOLDER).exists()
