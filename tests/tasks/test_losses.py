"""Reconstruction losses against torchmetrics, which computes the same in another way."""

import math

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from healing_mnist.checks import UserError
from healing_mnist.networks.layers import Sigmoid
from healing_mnist.tasks import losses
from healing_mnist.tasks.losses import ssim


def pair(*shape):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(shape, generator=generator)
    noise = 0.2 * torch.randn(shape, generator=generator)
    return (target + noise).clamp(0, 1).requires_grad_(), target


@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (2, 3, 32, 32), (2, 1, 20, 31), (1, 1, 6, 9)])
def test_ssim_and_its_gradient_are_those_of_torchmetrics(shape):
    prediction, target = pair(*shape)
    found = ssim(prediction, target)
    (gradient,) = torch.autograd.grad(found, prediction)
    expected = 1 - structural_similarity_index_measure(prediction, target, data_range=1.0)
    (expected_gradient,) = torch.autograd.grad(expected, prediction)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-6)


def test_ssim_of_sequences_is_that_of_their_frames():
    prediction, target = pair(2, 3, 1, 28, 28)
    torch.testing.assert_close(ssim(prediction, target), ssim(prediction.flatten(0, 1), target.flatten(0, 1)))


def test_ssim_is_computed_in_float32_under_autocast():
    prediction, target = pair(4, 1, 28, 28)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ssim(prediction, target)
    assert found.dtype == torch.float32
    assert found == ssim(prediction, target)
    assert ssim(target, target) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_the_gradient_of_cross_entropy_survives_mixed_precision(kind):
    logits = torch.tensor([5.0, 7.0, 9.0, 12.0], dtype=kind, requires_grad=True)
    with torch.autocast("cpu", dtype=kind):
        losses.bce(Sigmoid()(logits), torch.zeros(4)).backward()
    assert torch.allclose(4 * logits.grad.float(), 1 / (1 + (-logits.detach().float()).exp()), rtol=1e-2)


def test_binary_cross_entropy_is_computed_outside_autocast(monkeypatch):
    """Autocast of a GPU refuses it, whatever its inputs are; that of a CPU does not."""
    seen, original = [], losses.F.binary_cross_entropy

    def watched(*given):
        seen.append(torch.is_autocast_enabled("cpu"))
        return original(*given)

    monkeypatch.setattr(losses.F, "binary_cross_entropy", watched)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses.bce(*pair(2, 1, 9, 9))
    assert seen == [False]


def test_ssim_can_be_trained_with_after_a_test():
    with torch.inference_mode():
        ssim(*pair(2, 1, 17, 13))
    prediction, target = pair(2, 1, 17, 13)
    ssim(prediction, target).backward()
    assert prediction.grad.abs().sum() > 0


def test_ssim_refuses_images_smaller_than_half_its_window():
    with pytest.raises(
        UserError, match=r"SSIM, as loss or score, compares windows of 11 pixels and needs 6; .* have 5"
    ):
        ssim(*pair(1, 1, 5, 14))


def test_the_losses_of_pixels_written_out():
    prediction, target = pair(3, 1, 5, 4)
    pixels = list(zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True))
    count = len(pixels)
    assert float(losses.mse(prediction, target)) == pytest.approx(sum((p - t) ** 2 for p, t in pixels) / count)
    assert float(losses.l1(prediction, target)) == pytest.approx(sum(abs(p - t) for p, t in pixels) / count)
    inside = prediction.detach().clamp(0.1, 0.9)
    pixels = zip(inside.flatten().tolist(), target.flatten().tolist(), strict=True)
    expected = -sum(t * math.log(p) + (1 - t) * math.log(1 - p) for p, t in pixels) / count
    assert float(losses.bce(inside, target)) == pytest.approx(expected, rel=1e-5)
