"""Winograd's convolutions against torch's in float64."""

import pytest
import torch
from torch.nn import functional as F

from healing_mnist.networks import winograd
from healing_mnist.networks.winograd import WinogradConvolution


def drawn(shape, out, kernel_size, dtype=torch.float64):
    torch.manual_seed(0)
    maps = torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(out, shape[1], kernel_size, kernel_size, dtype=dtype)
    return [each.requires_grad_() for each in (maps, weight, torch.randn(out, dtype=dtype))]


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("size", [(8, 4), (7, 9), (5, 6), (1, 1)])
def test_the_convolution_and_its_derivative(size, kernel_size):
    """Also of maps that tiles do not fit, or that are smaller than one."""
    given = drawn((2, 3, *size), 4, kernel_size)
    made, expected = WinogradConvolution.apply(*given), F.conv2d(*given, padding=kernel_size // 2)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-12)
    assert made.is_contiguous(memory_format=torch.channels_last)
    d_out = torch.randn_like(expected)
    for ours, torchs in zip(*(torch.autograd.grad(each, given, d_out) for each in (made, expected)), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-12)


def test_blocks_of_images(monkeypatch):
    """More images than are computed at once, the last block smaller."""
    monkeypatch.setattr(winograd, "BLOCK", 2 * 4 * (3 + 4))  # images, tiles of 8x8, channels
    given = drawn((5, 3, 8, 8), 4, 3)
    made, expected = WinogradConvolution.apply(*given), F.conv2d(*given, padding=1)
    d_out = torch.randn_like(expected)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-12)
    for ours, torchs in zip(*(torch.autograd.grad(each, given, d_out) for each in (made, expected)), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("needed", [(False, True, True), (True, False, True), (False, False, True)])
def test_only_gradients_that_are_needed_are_computed(needed, monkeypatch):
    """Those of the maps and of the weight take half of the time each."""
    given = [
        each.detach().requires_grad_(wanted) for each, wanted in zip(drawn((2, 3, 8, 8), 4, 3), needed, strict=True)
    ]
    wanted = [each for each in given if each.requires_grad]
    expected = torch.autograd.grad(F.conv2d(*given, padding=1).square().sum(), wanted)
    made = WinogradConvolution.apply(*given).square().sum()
    for name, of in {"images_of": needed[0], "tiles_at_points": needed[1]}.items():
        if not of:
            monkeypatch.delattr(winograd._Cut, name)
    for ours, torchs in zip(torch.autograd.grad(made, wanted), expected, strict=True):
        torch.testing.assert_close(ours, torchs)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_error_in_float32(kernel_size, monkeypatch):
    """A millionth, and less than with the points of the textbooks."""
    given = [each.detach() for each in drawn((2, 64, 36, 36), 64, kernel_size, torch.float32)]
    exact = F.conv2d(*(each.double() for each in given), padding=kernel_size // 2)

    def error():
        winograd.transforms.cache_clear()
        return ((WinogradConvolution.apply(*given) - exact).abs().mean() / exact.std()).item()

    ours = error()
    with monkeypatch.context() as patch:
        patch.setattr(winograd, "POINTS", (0, 1, -1, 2, -2))
        textbook = error()
    winograd.transforms.cache_clear()
    assert ours < min(1e-6, 0.8 * textbook)


def test_backward_within_autocast_keeps_to_float32():
    """As that of F.conv2d does: the gradients' precision is that of the forward pass."""
    given = drawn((2, 3, 8, 8), 4, 3, torch.float32)
    expected = torch.autograd.grad(F.conv2d(*given, padding=1).square().sum(), given)
    made = WinogradConvolution.apply(*given).square().sum()
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(made, given)
    for ours, torchs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("maps", "weight", "faster"),
    [
        ((16, 80, 36, 36), (160, 80, 3, 3), True),
        ((16, 80, 36, 36), (160, 80, 5, 5), True),
        ((16, 80, 36, 36), (160, 80, 7, 7), False),
        ((16, 20, 36, 36), (160, 20, 3, 3), False),
        ((16, 64, 36, 36), (64, 64, 3, 3), False),
        ((1, 80, 14, 14), (160, 80, 3, 3), False),  # too few tiles to share the work on the kernels
        ((64, 80, 9, 9), (160, 80, 3, 3), False),  # tiles cover 12 x 12
    ],
)
def test_where_it_is_taken(maps, weight, faster):
    assert winograd.is_faster(torch.empty(maps), torch.empty(weight)) is faster
