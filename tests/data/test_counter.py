"""Counter-based random numbers against published SplitMix64 output and against the theory of what they should be."""

import math

import pytest
import torch
from scipy import stats

from healing_mnist.data import counter

SEEDS = torch.arange(40) * 7_919 + 2**61


def splitmix64(seed: int, count: int) -> list[int]:
    """The published algorithm in Python's own integers."""
    mask, state, output = (1 << 64) - 1, seed, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        output.append(z ^ (z >> 31))
    return output


def test_reference_reproduces_the_published_numbers():
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("seed", [0, 1, 2**62 - 1])
@pytest.mark.parametrize("stream", [0, 5])
def test_uniform_is_splitmix64_from_a_hashed_seed(seed, stream):
    # A generator started at s - gamma gives mix(s) first: that is how `_mix` reads in terms of the published generator.
    mix = lambda value: splitmix64((value - 0x9E3779B97F4A7C15) % 2**64, 1)[0]  # noqa: E731
    expected = [bits >> 40 for bits in splitmix64((mix((mix(seed) + stream) % 2**64)), 6)]
    numbers = counter.uniform(torch.tensor([seed]), (2, 3), stream)
    assert (numbers * 2**24).long().flatten().tolist() == expected


def test_batch_equals_its_items_and_longer_rows_begin_alike():
    whole = counter.normal(SEEDS, (3, 5, 5))
    assert torch.equal(whole, torch.cat([counter.normal(seed[None], (3, 5, 5)) for seed in SEEDS]))
    assert torch.equal(whole[:, :2], counter.normal(SEEDS, (2, 5, 5)))


def test_normal_numbers_are_standard_normal():
    numbers = counter.normal(SEEDS, (5_000,)).flatten().double()
    n = numbers.numel()
    assert abs(numbers.mean()) < 4 / math.sqrt(n)
    assert abs(numbers.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((numbers**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((numbers**4).mean() - 3) < 4 * math.sqrt(96 / n)
    assert stats.kstest(numbers.numpy(), "norm").pvalue > 1e-3


def test_uniform_numbers_are_uniform():
    numbers = counter.uniform(SEEDS, (5_000,)).flatten().numpy()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("distance", [1, 36, 1296])
def test_neighbours_in_a_row_are_uncorrelated(distance):
    numbers = counter.normal(SEEDS, (20_000,))
    assert_uncorrelated(numbers[:, distance:], numbers[:, :-distance])


def test_rows_and_streams_are_uncorrelated():
    seeds = torch.arange(41)  # neighbouring seeds, the hardest case
    numbers = counter.normal(seeds, (20_000,))
    assert_uncorrelated(numbers[1:], numbers[:-1])
    assert_uncorrelated(numbers, counter.normal(seeds, (20_000,), stream=1))


def assert_uncorrelated(a, b):
    assert abs((a * b).mean()) < 4 / math.sqrt(a.numel())
    assert abs(((a**2 - 1) * (b**2 - 1)).mean() / 2) < 4 / math.sqrt(a.numel())
