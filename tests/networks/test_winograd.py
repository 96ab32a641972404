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


def test_no_gradient_of_maps_that_need_none():
    maps, *parameters = drawn((2, 3, 8, 8), 4, 3)
    maps = maps.detach()
    for ours, torchs in zip(
        torch.autograd.grad(WinogradConvolution.apply(maps, *parameters).square().sum(), parameters),
        torch.autograd.grad(F.conv2d(maps, *parameters, padding=1).square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(ours, torchs)


@pytest.mark.parametrize(("kernel_size", "times"), [(3, 8), (5, 16)])
def test_error_in_float32(kernel_size, times):
    """On average a few times that of the direct convolution, as the points were chosen for."""
    given = [each.detach() for each in drawn((2, 64, 36, 36), 64, kernel_size, torch.float32)]
    exact = F.conv2d(*(each.double() for each in given), padding=kernel_size // 2)
    direct, ours = F.conv2d(*given, padding=kernel_size // 2), WinogradConvolution.apply(*given)
    errors = [(each - exact).abs().mean() / exact.std() for each in (direct, ours)]
    assert errors[1] < min(times * errors[0], 1e-5), errors
