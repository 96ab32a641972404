import gzip
import struct

import numpy as np
import pytest
import torch
from idx_files import NAMES, four_arrays, idx, write_four

from healing_mnist.checks import UserError
from healing_mnist.data import sources
from healing_mnist.data.idx import read_idx

IMAGES, LABELS = f"{NAMES[0]}.gz", f"{NAMES[1]}.gz"


def load(root):
    return sources.load("mnist", root, cache=root / "unused")


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("inside", [".", "raw"])
def test_reads_gz_and_plain_in_the_folder_or_its_raw(tmp_path, compress, inside):
    arrays = four_arrays()
    write_four(tmp_path / inside, arrays, compress)
    base = load(tmp_path)
    assert base.train_images.dtype == base.test_images.dtype == torch.uint8
    assert base.train_labels.dtype == base.test_labels.dtype == torch.int64
    np.testing.assert_array_equal(base.train_images.numpy()[:, 0], arrays[0])
    np.testing.assert_array_equal(base.train_labels.numpy(), arrays[1])
    np.testing.assert_array_equal(base.test_images.numpy()[:, 0], arrays[2])
    np.testing.assert_array_equal(base.test_labels.numpy(), arrays[3])
    assert not (tmp_path / "unused").exists()


def test_reads_the_other_usual_spelling(tmp_path):
    write_four(tmp_path, four_arrays(), compress=False)
    for name in NAMES:
        (tmp_path / name).rename(tmp_path / name.replace("-idx", ".idx"))
    assert load(tmp_path).train_images.shape == (6, 1, 28, 28)


def cut(content):
    return content[: len(content) // 2]


def flip_a_byte(content):
    return content[:200] + bytes([content[200] ^ 0xFF]) + content[201:]


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        (IMAGES, cut, "cut short"),
        (IMAGES, flip_a_byte, "cannot be read"),
        (IMAGES, lambda _: b"", "is no IDX file"),
        (IMAGES, lambda _: b"<html>not found</html>", "is no IDX file"),
        (IMAGES, lambda _: idx(np.zeros((6, 28, 28)), element=0x0D), "starts with 00 00 0d 03, not 00 00 08"),
        (IMAGES, lambda _: struct.pack(">BBBBI", 0, 0, 8, 3, 6), "cut short in its header"),
        (IMAGES, lambda content: gzip.decompress(content)[:-10], "states 6x28x28 = 4704 values and holds 4694"),
        (IMAGES, lambda _: idx(np.zeros((6, 32, 32))), "holds 6x32x32 values; expected N images of 28x28"),
        (IMAGES, lambda _: idx(np.zeros(6)), "expected N images of 28x28"),
        (LABELS, lambda _: idx(np.zeros(5)), "holds 5 labels for 6 images"),
        (LABELS, lambda _: idx(np.full(6, 10)), "labels in 0..9"),
    ],
)
def test_a_damaged_file_is_named_and_left_in_place(tmp_path, file, damage, says):
    write_four(tmp_path, four_arrays())
    damaged = damage((tmp_path / file).read_bytes())
    (tmp_path / file).write_bytes(damaged)
    with pytest.raises(UserError) as error:
        load(tmp_path)
    assert str(tmp_path / file) in str(error.value)
    assert says in str(error.value)
    assert "left in place" in str(error.value)
    assert (tmp_path / file).read_bytes() == damaged


def test_no_images_at_all_is_said(tmp_path):
    write_four(tmp_path, four_arrays(train=0))
    with pytest.raises(UserError, match="at least one"):
        load(tmp_path)


def test_a_missing_folder_and_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"data\.root=.*nowhere: no such folder"):
        load(tmp_path / "nowhere")
    write_four(tmp_path, four_arrays())
    (tmp_path / IMAGES).unlink()
    (tmp_path / LABELS).unlink()
    with pytest.raises(UserError, match=f"no {IMAGES}, {LABELS} "):
        load(tmp_path)


def test_an_unreadable_file_is_one_message(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_idx(tmp_path)  # a folder
