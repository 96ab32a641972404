"""Random numbers that are a pure function of (seed, position): no state, no storage, the same on every device.

A row of a table keeps one seed; its noise is computed when its frames are. So a batch equals its items one by one, and
a number does not depend on how many were asked for. SplitMix64 (Steele, Lea and Flood 2014,
doi:10.1145/2660193.2660195) serves as a counter-based generator, which takes integer operations only.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

LEVELS = 1 << 16  # a normal number takes one of so many values, each as likely


def uniform(seeds: Tensor, shape: tuple[int, ...], stream: int = 0) -> Tensor:
    """Independent numbers in [0, 1), float32 ``(B, *shape)``, multiples of 2^-24.

    Args:
        seeds: (B,) int64, one for each row.
        shape: shape of a row's numbers.
        stream: rows with equal seeds draw independent numbers in different streams.
    """
    return _top_bits(seeds, shape, stream, 24).float() * 2.0**-24


def normal(seeds: Tensor, shape: tuple[int, ...], stream: int = 0) -> Tensor:
    """Independent standard normal numbers, float32 ``(B, *shape)``; arguments as in `uniform`.

    Numbers are looked up in a table of 65,536 equally likely quantiles (the largest is 4.3), made once on the CPU:
    logarithms and cosines would differ in the last digit between devices.
    """
    return _quantiles(seeds.device)[_top_bits(seeds, shape, stream, 16)]


@cache
def _quantiles(device: torch.device) -> Tensor:
    middle = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    values = torch.special.ndtri(middle)
    return (values / values.square().mean().sqrt()).float().to(device)


def _top_bits(seeds: Tensor, shape: tuple[int, ...], stream: int, count: int) -> Tensor:
    """The highest `count` bits of SplitMix64's output at positions 0, 1, 2 ... of each row, int64 ``(B, *shape)``."""
    key = _mix(_mix(seeds) + stream)[:, None]
    position = torch.arange(1, math.prod(shape) + 1, device=seeds.device)
    return _shift(_mix(key + position * _signed(0x9E3779B97F4A7C15)), 64 - count).view(len(seeds), *shape)


def _mix(state: Tensor) -> Tensor:
    """SplitMix64's output function; int64 multiplication wraps around like the unsigned one."""
    state = (state ^ _shift(state, 30)) * _signed(0xBF58476D1CE4E5B9)
    state = (state ^ _shift(state, 27)) * _signed(0x94D049BB133111EB)
    return state ^ _shift(state, 31)


def _shift(state: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros: torch's >> repeats the sign."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def _signed(constant: int) -> int:
    return constant - (1 << 64)
