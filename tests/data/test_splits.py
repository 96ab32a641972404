import pytest
import torch

from healing_mnist.checks import UserError
from healing_mnist.data.splits import split


@pytest.mark.parametrize(("count", "fraction", "expected"), [(10, 0.25, 2), (1000, 0.1, 100), (2, 0.5, 1)])
def test_parts_are_disjoint_and_cover_all(count, fraction, expected):
    train, val = split(count, fraction)
    assert len(val) == expected
    assert sorted(train.tolist() + val.tolist()) == list(range(count))


@pytest.mark.parametrize(("count", "folds"), [(10, 3), (100, 10), (7, 7), (2, 2)])
def test_each_image_validates_in_exactly_one_fold(count, folds):
    parts = [split(count, fold=fold, folds=folds) for fold in range(folds)]
    assert sorted(index for _, val in parts for index in val.tolist()) == list(range(count))
    for train, val in parts:
        assert sorted(train.tolist() + val.tolist()) == list(range(count))
        assert len(val) in (count // folds, -(-count // folds))


def test_the_seed_alone_decides():
    assert torch.equal(split(100, seed=1)[1], split(100, seed=1)[1])
    assert not torch.equal(split(100, seed=1)[1], split(100, seed=2)[1])
    assert not torch.equal(split(100)[1], torch.arange(10))  # a random part, not the first


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"val_fraction": 0.0}, "data.val_fraction=0: must be between 0 and 1"),
        ({"val_fraction": 1.0}, "data.val_fraction=1: must be between 0 and 1"),
        ({"val_fraction": 0.01}, "leaves 10 training and 0 validation images of 10"),
        ({"fold": 0}, "data.fold=0: needs data.folds"),
        ({"folds": 3}, "data.fold=null: must be in 0..2"),
        ({"fold": 3, "folds": 3}, "data.fold=3: must be in 0..2"),
        ({"fold": 0, "folds": 1}, "data.folds=1: must be at least 2"),
        ({"fold": 0, "folds": 11}, "data.folds=11: leaves 10 training and 0 validation"),
    ],
)
def test_impossible_settings_are_refused(settings, says):
    with pytest.raises(UserError) as error:
        split(10, **settings)
    assert says in str(error.value)
