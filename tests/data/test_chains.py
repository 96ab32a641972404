"""The chains against their theory, rendered frames against SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from healing_mnist.data.chains import (
    JUMP_ANGLE,
    JUMP_SHIFT,
    Chain,
    clipped_mean,
    draw_sequences,
    reflect,
    render_sequences,
)

CALM = Chain(0.9, 4.0), Chain(0.9, 0.3), Chain(0.9, 0.02)
DIGIT = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 1, 28, 28)).astype(np.uint8))


def draw(count=2_000, frames=16, chains=CALM, rate=0.0, images=3):
    image = torch.arange(count) % images
    return draw_sequences(image, frames, *chains, rate, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("persistence", [0.0, 0.5, 0.95])
def test_chain_leaves_independent_normal_innovations(persistence):
    changes = Chain(persistence, 2.5).draw((4_000, 12), torch.Generator().manual_seed(0)).double()
    for t in (0, 5, 11):
        assert changes[:, t].std().item() == pytest.approx(2.5, rel=5 / math.sqrt(2 * 4_000))
    innovations = (changes[:, 1:] - persistence * changes[:, :-1]) / (2.5 * math.sqrt(1 - persistence**2))
    assert stats.kstest(innovations.flatten().numpy(), "norm").pvalue > 1e-3
    before = changes[:, :-1] / 2.5
    assert abs((innovations * before).mean()) < 4 / math.sqrt(innovations.numel())


def test_reflect_by_hand():
    walk = torch.tensor([-4.0, 0.0, 3.5, 4.0, 5.0, 11.0, 12.5, 20.5, -5.0, -13.0])
    expected = [-4.0, 0.0, 3.5, 4.0, 3.0, -3.0, -3.5, 3.5, -3.0, 3.0]
    assert reflect(walk, -4, 4).tolist() == pytest.approx(expected)
    assert reflect(walk, 1, 1).tolist() == [1.0] * 10


def test_sequences_start_as_the_base_image_and_stay_in_range():
    rows = draw(chains=(Chain(0.9, 20.0), Chain(0.9, 3.0), Chain(0.9, 0.3)))
    assert not rows["rotation"][:, 0].any()
    assert not rows["shift"][:, 0].any()
    assert (rows["brightness"][:, 0] == 1).all()
    assert rows["shift"].abs().max() <= 4
    assert rows["shift"].abs().max() > 3.9
    assert 0.5 <= rows["brightness"].min() < 0.51
    assert rows["brightness"].max() <= 1


def test_steps_have_the_size_set():
    rows = draw(chains=(Chain(0.9, 4.0), Chain(0.9, 0.05), Chain(0.0, 0.0)))
    assert rows["rotation"].diff(dim=1).std().item() == pytest.approx(4.0, rel=0.05)
    assert rows["shift"].diff(dim=1).std().item() == pytest.approx(0.05, rel=0.05)
    assert (rows["brightness"] == 1).all()


def test_anomalies_have_the_rate_set_and_are_jumps():
    rows = draw(rate=0.01)
    anomalous, count = rows["anomalous"], rows["anomalous"].numel()
    assert anomalous.shape == (2_000, 15)
    assert abs(anomalous.sum() - 0.01 * count) < 4 * math.sqrt(0.01 * 0.99 * count)
    turned = rows["rotation"].diff(dim=1).abs()
    assert turned[anomalous].min() > 40  # 60 or more by the jump, a few back by the chain
    assert turned[~anomalous].max() < 25
    assert not draw(rate=0.0)["anomalous"].any()


def test_a_jump_turns_and_moves_and_the_chains_go_on_from_there():
    still = Chain(0.0, 0.0)
    rows = draw(frames=2, chains=(still, still, still), rate=1.0)
    turned, moved = rows["rotation"][:, 1], rows["shift"][:, 1]
    assert 60 <= turned.abs().min() < turned.abs().max() <= JUMP_ANGLE[1]
    assert 0.45 < (turned > 0).float().mean() < 0.55
    torch.testing.assert_close(moved.norm(dim=1), torch.full((2_000,), JUMP_SHIFT))
    assert moved.mean(0).abs().max() < 5 * JUMP_SHIFT / 2_000**0.5  # in all directions


@pytest.mark.parametrize(("size", "shape"), [(36, (28, 28)), (24, (28, 28)), (45, (32, 30))])
def test_frames_equal_scipy_without_noise(size, shape):
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 3, *shape)).astype(np.uint8))
    rows = draw(count=4, frames=5, rate=0.3, images=2)
    frames = render_sequences(rows, images, size, noise=0.0)
    assert frames.shape == (4, 5, 3, size, size)
    zoom = 28 / 36 * size / max(shape)
    middle, target_middle = (np.array(shape) - 1) / 2, np.full(2, (size - 1) / 2)
    for s in range(4):
        for t in range(5):
            angle = math.radians(rows["rotation"][s, t])
            cos, sin = math.cos(angle), math.sin(angle)
            # Counter-clockwise with rows downwards; SciPy wants the way back, from canvas to image, as (row, column).
            back = np.array([[cos, sin], [-sin, cos]]) / zoom
            shift = rows["shift"][s, t].double().numpy()[::-1] * size / 36
            offset = middle - back @ (target_middle + shift)
            for c in range(3):
                image = images[rows["image"][s], c].double().numpy() / 255
                expected = ndimage.affine_transform(
                    image, back, offset, output_shape=(size, size), order=1, mode="grid-constant"
                )
                expected = expected * rows["brightness"][s, t].item()
                np.testing.assert_allclose(frames[s, t, c].numpy(), expected, atol=2e-5)


def test_positive_angle_turns_counter_clockwise_and_shift_goes_right_and_down():
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    image[0, 0, 13:15, 24:26] = 255  # at the right edge
    rows = draw(count=3, frames=2, images=1)
    rows["rotation"][:, 1] = torch.tensor([90.0, 0.0, 0.0])
    rows["shift"][:, 1] = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    rows["brightness"][:] = 1
    frames = render_sequences(rows, image, 36, 0.0)[:, 1, 0]
    for frame, centre in zip(frames, [(6.5, 17.5), (17.5, 30.5), (19.5, 28.5)], strict=True):
        assert ndimage.center_of_mass(frame.numpy()) == pytest.approx(centre, abs=1e-3)


def test_noise_is_gaussian_and_independent_between_frames():
    grey = torch.full((1, 1, 28, 28), 128, dtype=torch.uint8)
    rows = draw(count=20, frames=6, chains=(Chain(0, 0), Chain(0, 0), Chain(0, 0)), images=1)
    inside = (..., slice(6, 30), slice(6, 30))
    noise = (render_sequences(rows, grey, 36, 0.05)[inside] - 128 / 255) / 0.05
    assert stats.kstest(noise.flatten().double().numpy(), "norm").pvalue > 1e-3
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 4 / math.sqrt(noise[:, 1:].numel())
    assert abs((noise[1:] * noise[:-1]).mean()) < 4 / math.sqrt(noise[1:].numel())


def test_batch_equals_its_items():
    rows = draw(count=5, rate=0.1)
    whole = render_sequences(rows, DIGIT, 36, 0.1)
    for i in range(5):
        one = {name: column[i : i + 1] for name, column in rows.items()}
        assert torch.equal(render_sequences(one, DIGIT, 36, 0.1)[0], whole[i])
    assert whole.min() >= 0
    assert whole.max() <= 1


def test_clipped_mean_is_the_mean_of_many_noisy_frames():
    clean = torch.linspace(0, 1, 11)
    noise = 0.15 * torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0))
    simulated = (clean + noise).clamp(0, 1).mean(0)
    torch.testing.assert_close(clipped_mean(clean, 0.15), simulated, atol=1.2e-3, rtol=0)  # 5 standard errors
    assert torch.equal(clipped_mean(clean, 0.0), clean)
