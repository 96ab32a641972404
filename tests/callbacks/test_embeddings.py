import numpy as np
import pytest
import torch
from PIL import Image

from healing_mnist.batch import Batch
from healing_mnist.callbacks.embeddings import WIDEST, Embeddings, choose, narrow, project
from healing_mnist.checks import UserError


def test_table_has_attributes_of_the_first_points(run_test, read_csv, tags, tmp_path):
    _, data = run_test(Embeddings(points=15, perplexity=5))
    rows, table = read_csv("embedding"), data.tables["test"]
    assert list(rows[0]) == ["x", "y", "class", "angle"]
    assert [int(row["class"]) for row in rows] == table["label"][:15].tolist()
    assert [float(row["angle"]) for row in rows] == pytest.approx(table["angle"][:15].tolist())
    assert tags() == ["embedding"]
    projector = next((tmp_path / "tensorboard").rglob("metadata.tsv"))
    header, *lines = projector.read_text().splitlines()
    assert header == "class\tangle"
    assert len(lines) == 15
    with Image.open(projector.parent / "sprite.png") as sprite:
        pixels = np.asarray(sprite.convert("L")) / 255
    shown = 0.5 * data.images[data.tables["test"]["image"][:15], 0].numpy() / 255  # inputs, four in a row
    for i, image in enumerate(shown):
        tile = pixels[6 * (i // 4) : 6 * (i // 4) + 6, 6 * (i % 4) : 6 * (i % 4) + 6]
        np.testing.assert_allclose(tile, image, atol=0.01)


def test_tsne_keeps_far_groups_apart():
    random = np.random.default_rng(0)
    centres = np.repeat(np.eye(3, 8) * 50, 20, axis=0)
    plane = project(centres + random.normal(size=(60, 8)), perplexity=10, seed=0)
    middles = plane.reshape(3, 20, 2).mean(1)
    spread = np.linalg.norm(plane.reshape(3, 20, 2) - middles[:, None], axis=-1).max()
    gaps = [np.linalg.norm(middles[i] - middles[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert min(gaps) > 2 * spread


def test_long_embeddings_keep_their_distances():
    torch.manual_seed(0)
    flat = torch.randn(30, 5) @ torch.randn(5, 1000)  # a thousand numbers, five of them free
    short = narrow(flat)
    assert short.shape == (30, min(30, WIDEST))
    torch.testing.assert_close(torch.cdist(short, short), torch.cdist(flat, flat), rtol=1e-3, atol=0.1)
    assert torch.equal(narrow(flat[:, :WIDEST]), flat[:, :WIDEST])


def test_an_unknown_attribute_is_refused(plain_data):
    plain_data.setup()
    with pytest.raises(UserError, match="attributes=square: must be one of class, angle"):
        Embeddings(attributes=["square"]).check_data(plain_data)


def test_embeddings_of_one_number_are_drawn_as_they_are():
    line = np.arange(5.0)[:, None]
    assert project(line, perplexity=30, seed=0).tolist() == [[x, 0] for x in range(5)]


def test_unknown_attribute_is_named():
    zeros = torch.zeros(2, dtype=torch.long)
    batch = Batch(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), zeros, zeros, {"angle": zeros, "digit": zeros})
    with pytest.raises(UserError, match="attributes=angel: must be one of class, angle, digit; did you mean 'angle'"):
        choose(batch, ["class", "angel"])
    assert list(choose(batch, None)) == ["class", "angle"]  # the digit is the class
    assert list(choose(batch, ["digit"])) == ["digit"]


@pytest.mark.parametrize("value", [0.0, 3.7])
def test_embeddings_that_are_all_the_same(value, caplog):
    noise = np.random.default_rng(0).normal(size=(100, 25)) * 1e-7 * value  # of rounding
    assert not project((value + noise).astype(np.float32), 30.0, 0).any()
    assert caplog.messages == ["all 100 embeddings are the same"]
