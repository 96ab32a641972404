"""What varies, from the command line and from yaml to a list of points."""

import math
from statistics import mean

import pytest

from healing_mnist.checks import UserError
from healing_mnist.sweeps.points import Dimension, deferred, from_yaml, grid, pairs, parse, repeated, said, sample


def dimension(text):
    return parse([text])[1][text.split("=")[0]]


def test_settings_within_groups_wait_for_the_jobs_where_groups_vary():
    fixed = ["data.length=[3,8]", "+model.name='a, (b)'", "data/sequences=var_grow", "data.limit=null", "data.x="]
    fixed += ["analysis.context.sequences=1", "optimizer.betas=[0.9,0.99]", "+model.y=${seed}"]
    count = 1 + len(fixed)
    others = ["seed=1,2", "data.source=mnist", "data.root=/a", "trainer.max_epochs=3", "--multirun", "~data.limit"]
    for varied in ("experiment=convgru,simvp", "model=glob(conv*)", "sweep=classifiers"):
        written = deferred([varied, *fixed, *others])
        assert parse(written[1:count])[0] == {}  # so Hydra leaves them out
        assert not set(written[1:count]) & set(fixed)
        assert (written[0], written[count:]) == (varied, others)
        assert list(map(said, written)) == [varied, *fixed, *others]
    assert deferred(["model.latent_dim=3,4", "sweep=latent_dim", *fixed]) == [
        "model.latent_dim=3,4",
        "sweep=latent_dim",
        *fixed,
    ]


def test_fixed_settings_are_told_from_those_that_vary():
    fixed, varied = parse(["experiment=joint", "model.channels=[8,16]", "seed=1,2", "+a.b=range(1,6,2)"])
    assert fixed == {"experiment": "experiment=joint", "model.channels": "model.channels=[8,16]"}
    assert varied["seed"].values == ("1", "2")
    assert varied["+a.b"].values == ("1", "3", "5")


def test_a_yaml_takes_lists_and_hydras_grammar():
    written = {"a": [0, 0.5, "dynamic", None, [8, 16]], "b": "tag(log,interval(1e-5,0.1))", "c": [True]}
    _, varied = parse([line for line in from_yaml(written) if not line.startswith("c")])
    assert varied["a"].values == ("0", "0.5", "dynamic", "null", "[8,16]")
    assert (varied["b"].low, varied["b"].high, varied["b"].log) == (1e-5, 0.1, True)


def test_grid_holds_every_combination_in_order():
    points = grid([Dimension("a", ("1", "2")), Dimension("b", ("x", "y", "z"))])
    assert points == [{"a": a, "b": b} for a in "12" for b in "xyz"]


def test_pairs_change_together():
    together = pairs([{"batch": [32, 64], "lr": [0.1, 0.2]}])
    assert grid([Dimension("seed", ("1", "2"))], together) == [
        {"batch": "32", "lr": "0.1", "seed": "1"},
        {"batch": "32", "lr": "0.1", "seed": "2"},
        {"batch": "64", "lr": "0.2", "seed": "1"},
        {"batch": "64", "lr": "0.2", "seed": "2"},
    ]
    with pytest.raises(UserError, match="batch has 2, lr has 1"):
        pairs([{"batch": [32, 64], "lr": [0.1]}])
    with pytest.raises(UserError, match=r"sweep\.zip: lr=0\.1: must be a list"):
        pairs([{"batch": [32, 64], "lr": 0.1}])


def test_random_points_are_spread_as_asked():
    spaces = [
        "lr=tag(log,interval(1e-5,0.1))",
        "layers=int(interval(1,7))",
        "width=tag(log,int(interval(1,100)))",
        "act=relu,tanh",
    ]
    points = sample([dimension(space) for space in spaces], [], 3000)
    exponents = [math.log10(float(point["lr"])) for point in points]
    assert mean(exponents) == pytest.approx(-3, abs=0.1)  # the middle of -5 and -1
    assert mean(e < -4 for e in exponents) == pytest.approx(0.25, abs=0.04)
    counts = [sum(point["layers"] == str(n) for point in points) / len(points) for n in range(1, 8)]
    assert counts == pytest.approx([1 / 7] * 7, abs=0.03)  # both ends as often as the middle
    widths = [int(point["width"]) for point in points]
    assert (min(widths), max(widths)) == (1, 100)
    assert mean(w <= 10 for w in widths) == pytest.approx(math.log(10.5 / 0.5) / math.log(100.5 / 0.5), abs=0.04)
    assert mean(point["act"] == "relu" for point in points) == pytest.approx(0.5, abs=0.04)


def test_random_points_are_reproducible_different_and_only_grow():
    space = [dimension("lr=interval(0,1)"), dimension("act=relu,tanh")]
    few, many = sample(space, [], 5, seed=3), sample(space, [], 9, seed=3)
    assert many[:5] == few
    assert len({tuple(point.items()) for point in many}) == 9
    assert sample(space, [], 5, seed=4) != few
    assert len(sample([dimension("act=relu,tanh")], [], 50)) == 2


def test_seeds_repeat_the_points():
    assert repeated([{"a": "1"}, {"a": "2"}], [Dimension("seed", ("7", "8"))]) == [
        {"a": a, "seed": seed} for seed in "78" for a in "12"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr=tag(log,interval(0,1))", "logarithm needs a lower end above 0"),
        ("lr=interval(1,0)", "lower end must be below"),
        ("lr=tag(loc,interval(1,2))", "unknown tag loc; allowed: log, int"),
        ("a=[1,2", "a="),
        ("lr=range(3,3)", "there is no value in it"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(UserError) as error:
        parse([text])
    assert message in str(error.value)


def test_an_interval_cannot_be_listed():
    with pytest.raises(UserError, match=r"lr: uniform in \[0, 1\] cannot be listed"):
        grid([dimension("lr=interval(0,1)")])
