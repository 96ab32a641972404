import pytest
import torch

from healing_mnist.checks import UserError
from healing_mnist.data.base import shares
from healing_mnist.data.healing import HealingImages

SPLITS = ("train", "val", "test")


def made(**settings):
    data = HealingImages(**{"rotation_ratio": 0.5, "square_ratio": 0.5, **settings})
    data.setup()
    return data


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def images_of(data, split):
    return set(data.tables[split]["image"].tolist())


@pytest.mark.parametrize("settings", [{}, {"fold": 2, "folds": 5}, {"limit": 300}])
def test_splits_share_no_base_image(settings):
    data = made(**settings)
    train, val, test = (images_of(data, split) for split in SPLITS)
    assert not train & val
    assert not (train | val) & test
    assert len(train | val) == settings.get("limit", 1442)
    assert test == set(range(1442, 1797))  # the source's own test images, all of them


def test_folds_take_turns():
    validated = [index for fold in range(3) for index in images_of(made(fold=fold, folds=3), "val")]
    assert sorted(validated) == list(range(1442))


def test_a_limit_beyond_the_images_there_are_is_refused():
    with pytest.raises(UserError, match=r"data\.limit=1443: at most 1442"):
        made(limit=1443)


def test_the_seed_alone_decides_the_tables():
    first, again, other = made(seed=3), made(seed=3), made(seed=4)
    for split in SPLITS:
        assert same(first.tables[split], again.tables[split])
        assert not torch.equal(first.tables[split]["angle"], other.tables[split]["angle"])
    assert images_of(first, "val") != images_of(other, "val")
    assert not torch.equal(first.tables["val"]["angle"][:100], first.tables["test"]["angle"][:100])


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(1)
    first = made()
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert same(first.tables["train"], made().tables["train"])
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_resample_draws_new_training_rows_each_epoch():
    data, resumed, fixed = made(resample=True), made(resample=True), made()
    before = {split: dict(data.tables[split]) for split in SPLITS}
    first = data.batch("train", torch.arange(50)).input
    for epoch in (1, 2):
        data.start_epoch(epoch)
        fixed.start_epoch(epoch)
    assert not torch.equal(data.tables["train"]["angle"], before["train"]["angle"])
    assert not torch.equal(data.batch("train", torch.arange(50)).input, first)
    assert images_of(data, "train") == set(before["train"]["image"].tolist())
    assert same(data.tables["val"], before["val"])
    assert same(data.tables["test"], before["test"])
    resumed.start_epoch(2)  # a run that continues in epoch 2 sees what one never stopped sees
    assert same(data.tables["train"], resumed.tables["train"])
    assert same(fixed.tables["train"], before["train"])


def test_images_stay_uint8_and_are_kept_once_on_each_device():
    data = made()
    data.batch("train", torch.tensor([0]))
    data.batch("test", torch.tensor([0]))
    here, there = torch.device("cpu"), torch.device("meta")
    assert data._on(here, "images", data.images) is data.images  # not a copy where they are already
    batch = data.batch("train", torch.tensor([0, 1], device=there))
    moved = data._on(there, "images", data.images)
    assert data.batch("val", torch.tensor([0], device=there)).input.device == there
    assert data._on(there, "images", data.images) is moved
    assert moved.dtype == torch.uint8
    assert moved.shape == data.images.shape
    assert batch.input.device == batch.label.device == batch.attributes["angle"].device == there
    assert batch.input.shape == (2, 1, 28, 28)


def test_loaders_hand_out_each_row_once_and_shuffle_training_by_epoch():
    data = made(batch_size=100, eval_batch_size=50)
    train, val, (test,) = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    assert [len(index) for index in train][:2] == [100, 100]
    for loader, split in ((train, "train"), (val, "val"), (test, "test")):
        rows = torch.cat(list(loader))
        assert torch.equal(rows.sort().values, data.tables[split]["index"])
        assert torch.equal(rows, data.tables[split]["index"]) == (split != "train")
    first = torch.cat(list(train))
    train.sampler.set_epoch(1)
    assert not torch.equal(torch.cat(list(train)), first)


@pytest.mark.parametrize(
    ("count", "batch_size", "processes"), [(25, 10, 2), (400, 100, 4), (5, 1, 2), (2, 9, 3), (0, 9, 2)]
)
def test_processes_share_rows_evenly_and_count_each_as_often(count, batch_size, processes):
    batches = shares(count, batch_size, processes)
    assert len(batches) % processes == 0
    assert all(0 < len(batch) <= max(batch_size, 2) for batch in batches)
    times = torch.cat([torch.zeros(0, dtype=torch.int64), *batches]).bincount(minlength=count)
    assert len(times) == count
    assert len(times.unique()) <= 1


def test_a_split_added_leaves_the_others_as_they_were():
    class WithOneMore(HealingImages):
        test_splits = ("test_more", "test")

        def draw(self, split, generator):
            return super().draw("test" if split == "test_more" else split, generator)

    data = WithOneMore(rotation_ratio=0.5, square_ratio=0.5)
    data.setup()
    before = made().tables
    assert all(same(data.tables[split], before[split]) for split in SPLITS)
    assert not torch.equal(data.tables["test_more"]["angle"], before["test"]["angle"])


def test_a_row_takes_twenty_bytes():
    columns = made().tables["train"].values()
    assert sum(column.element_size() * column.numel() for column in columns) <= 24 * len(
        made().tables["train"]["index"]
    )


def test_the_seed_deals_the_limited_images_and_the_order_of_training():
    first, again, other = (made(limit=300, seed=seed) for seed in (1, 1, 2))
    used = [images_of(data, "train") | images_of(data, "val") for data in (first, again, other)]
    assert used[0] == used[1] != used[2]
    orders = []
    for data in (made(seed=1), made(seed=2)):
        data.start_epoch(0)
        orders.append(list(data.train_dataloader().batch_sampler.sampler))
    assert orders[0] != orders[1]
