import math
from typing import Literal

import pytest

from healing_mnist import checks
from healing_mnist.checks import Fraction, Positive, PositiveFloat, mismatch, problems_of


class Base:
    def __init__(self, width: Positive, ratio: Fraction = 0.5):
        pass


class Child(Base):
    def __init__(
        self, *, mode: Literal["a", "b"] = "a", sizes: list[Positive] = (1,), angles: list[float] = (), **base
    ):
        pass


def node(**settings):
    return {"_target_": f"{__name__}.Child", "width": 3, **settings}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "model.width=0: must be an integer at least 1"),
        ({"width": "wide"}, "model.width=wide: must be an integer"),
        ({"width": 2.5}, "model.width=2.5: must be an integer"),
        ({"ratio": 1.2}, "model.ratio=1.2: must be a number in [0, 1]"),
        ({"ratio": math.nan}, "model.ratio=nan: must be a finite number"),
        ({"angles": [1, math.inf]}, "model.angles=[1, inf]: must be a list, each a finite number"),
        ({"mode": "c"}, "model.mode=c: must be one of a, b"),
        ({"sizes": [2, 0]}, "model.sizes=[2, 0]: must be a list, each an integer at least 1"),
        ({"sizes": 2}, "model.sizes=2: must be a list"),
        ({"widht": 2}, "model.widht=2: unknown setting of Child; did you mean 'width'?"),
    ],
)
def test_a_setting_that_does_not_fit_is_named_with_what_is_allowed(settings, message):
    assert problems_of(node(**settings), "model") == [message]


def test_all_problems_are_found_at_once():
    assert len(problems_of({"x": node(width=0), "y": [node(ratio=-1)]}, "group")) == 2


def test_a_missing_setting_is_named():
    assert problems_of({"_target_": f"{__name__}.Base"}, "model") == ["model.width: missing; Base needs it"]
    assert problems_of({"_target_": f"{__name__}.Base"}, "model", supplied=("width",)) == []


def test_a_target_that_does_not_exist_is_named():
    (problem,) = problems_of({"_target_": "healing_mnist.nowhere.Net"}, "model")
    assert problem.startswith("model._target_=healing_mnist.nowhere.Net: cannot be imported")
    (problem,) = problems_of({"_target_": "healing_mnist.networks.autoencoder.Autoencodr"}, "model")
    assert problem.endswith("; did you mean 'Autoencoder'?")


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (None, Positive | None, True),
        (0, Positive | None, False),
        (True, int, False),
        (1, float, True),
        (10**400, float, True),
        (math.inf, float, False),
        (-math.inf, PositiveFloat | None, False),
        ("dynamic", Fraction | Literal["dynamic"], True),
        ("static", Fraction | Literal["dynamic"], False),
        ([1, 2, 3], tuple[Positive, Positive, Positive], True),
        ([1, 2], tuple[Positive, Positive, Positive], False),
    ],
)
def test_types(value, hint, fits):
    assert (mismatch(value, hint) is None) == fits


def test_suggestion_names_the_nearest():
    assert "latent_dim" in checks.suggestion("latnt_dim", ["latent_dim", "channels"])
    assert checks.suggestion("zzz", ["latent_dim"]) == ""
