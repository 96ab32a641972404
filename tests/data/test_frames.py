import numpy as np
import pytest
import torch
from scipy.ndimage import rotate as scipy_rotate

from healing_mnist.checks import UserError
from healing_mnist.data.frames import add_squares_, rotate, to_float
from healing_mnist.data.healing import HealingImages
from healing_mnist.data.sequences import HealingSequences


def noise(batch, channels=1, height=28, width=28):
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, channels, height, width), generator=generator, dtype=torch.uint8)


def with_scipy(images, angles):
    """The same by one call of SciPy for each frame: (B, C, H, W), (B, T) -> (B, T, C, H, W)."""
    scaled = images.numpy() / 255
    frames = [
        [[scipy_rotate(channel, angle, order=1, reshape=False) for channel in image] for angle in row]
        for image, row in zip(scaled, angles.tolist(), strict=True)
    ]
    return torch.tensor(np.array(frames), dtype=torch.float32)


CHOICES = torch.tensor([[0.0, 90.0, 180.0, 270.0], [0.0, 37.0, 74.0, 111.0], [-20.0, 400.0, 12.5, 359.0]])
ANY = torch.tensor([0.0, 90.0, 180.0, 270.0, 360.0, 1e-3, 1.0, 33.3, 45.0, 123.456, -20.0, 725.0, 89.99])


# Images of odd, even and unequal sides; noise up to the border, so that the edge is compared too.
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 9, 14), (2, 15, 7)])
def test_rotation_is_scipys(shape):
    images = noise(7, *shape)
    angles = ANY.repeat(7, 1)
    torch.testing.assert_close(rotate(images, angles), with_scipy(images, angles), rtol=0, atol=2e-5)
    which = torch.tensor([2, 0, 1, 1, 0, 2, 1])
    torch.testing.assert_close(rotate(images, CHOICES, which), with_scipy(images, CHOICES[which]), rtol=0, atol=1e-6)


def test_one_angle_a_row_gives_one_image_a_row():
    images = noise(5, channels=3)
    angles = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])
    expected = with_scipy(images, angles[:, None])[:, 0]
    torch.testing.assert_close(rotate(images, angles), expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(rotate(images, angles, torch.arange(5)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("which", [None, torch.tensor([0])])
def test_positive_is_counter_clockwise(which):
    image = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    image[0, 0, 2, 4] = 255  # right of the centre
    turned = rotate(image, torch.tensor([90.0]), which)
    assert turned[0, 0, 0, 2] == 1.0  # now above it
    assert turned.sum() == pytest.approx(1.0, abs=1e-6)


def test_multiples_of_90_degrees_of_a_table_are_exact():
    images = noise(3)
    frames = rotate(images, CHOICES, torch.zeros(3, dtype=torch.int64))
    for quarter in range(4):
        assert torch.equal(
            frames[:, quarter], torch.from_numpy(np.float32(images) / np.float32(255)).rot90(quarter, (2, 3))
        )


def test_stays_in_zero_to_one():
    white = torch.full((2, 1, 28, 28), 255, dtype=torch.uint8)
    angles = torch.arange(0, 360, 0.25)[None]
    for frames in (rotate(white, angles.repeat(2, 1)), rotate(white, angles, torch.tensor([0, 0]))):
        assert frames.min() >= 0
        assert frames.max() == 1
    assert torch.equal(to_float(white), torch.ones(2, 1, 28, 28))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fixed", [False, True])
def test_a_row_depends_on_itself_alone(channels, fixed):
    images, generator = noise(150, channels), torch.Generator().manual_seed(0)
    angles = torch.rand(150, 3, generator=generator) * 400
    which = torch.randint(0, 3, (150,), generator=generator)
    render = (
        (lambda rows: rotate(images[rows], CHOICES, which[rows]))
        if fixed
        else lambda rows: rotate(images[rows], angles[rows])
    )
    together = render(torch.arange(150))
    for size in (1, 2, 3, 16, 33, 149):
        rows = torch.randperm(150, generator=generator)[:size]
        assert torch.equal(render(rows), together[rows])


def squares_by_loop(frames, sides, corners):
    frames = frames.copy()
    height, width = frames.shape[-2:]
    for place in np.ndindex(sides.shape):
        side = sides[place]
        for corner in range(corners):
            top = height - side if corner >= 2 else 0
            left = width - side if corner % 2 else 0
            for y in range(top, top + side):
                for x in range(left, left + side):
                    frames[(*place, slice(None), y, x)] = 1.0
    return frames


@pytest.mark.parametrize("corners", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(6, 1, 28, 28), (4, 3, 3, 12, 10)])
def test_squares_are_those_of_a_loop(shape, corners):
    generator = torch.Generator().manual_seed(corners)
    frames = torch.rand(shape, generator=generator)
    sides = torch.randint(0, 9, shape[:-3], generator=generator)
    expected = squares_by_loop(frames.numpy(), sides.numpy(), corners)
    painted = add_squares_(frames, sides, largest=8, corners=corners)
    assert painted is frames
    np.testing.assert_array_equal(frames.numpy(), expected)


def test_a_square_may_fill_the_image():
    frames = torch.zeros(1, 1, 4, 4)
    assert torch.equal(add_squares_(frames, torch.tensor([4]), largest=4), torch.ones(1, 1, 4, 4))


@pytest.mark.parametrize("which", [None, torch.tensor([0, 1])])
def test_renders_on_the_device_of_the_images(which):
    images = noise(2).to("meta")
    angles, which = CHOICES[:2], None if which is None else which.to("meta")
    frames = add_squares_(rotate(images, angles, which), torch.zeros(2, 4, device="meta", dtype=torch.int64), largest=5)
    assert frames.device.type == "meta"
    assert frames.shape == (2, 4, 1, 28, 28)


@pytest.mark.slow
def test_compiled():
    """Two channels, unequal sides, any number of rows; quarter turns, as they touch the edge."""
    images, generator = noise(50, channels=2, height=9, width=14), torch.Generator().manual_seed(0)
    images[0] = 255
    which = torch.arange(50) % 3
    angles = torch.where(torch.rand(50, 1, generator=generator) < 0.5, CHOICES[which], ANY[:12].view(3, 4)[which])
    sides = torch.randint(0, 6, (50, 4), generator=generator)

    def render(rows):
        return add_squares_(rotate(images[rows], angles[rows], compile=True), sides[rows], 5, corners=4, compile=True)

    frames = render(torch.arange(50))
    expected = squares_by_loop(with_scipy(images, angles).numpy(), sides.numpy(), corners=4)
    np.testing.assert_allclose(frames.numpy(), expected, rtol=0, atol=5e-6)
    assert 0 <= frames.min() < frames.max() == 1
    for size in (1, 2, 33):
        rows = torch.randperm(50, generator=generator)[:size]
        assert torch.equal(render(rows), frames[rows])
    chosen = rotate(images, CHOICES, which, compile=True)
    torch.testing.assert_close(chosen, with_scipy(images, CHOICES[which]), rtol=0, atol=5e-6)
    for quarter in (0, 2):
        assert torch.equal(chosen[0::3, quarter], to_float(images[0::3]).rot90(quarter, (2, 3)))


@pytest.mark.parametrize("data", [HealingImages, HealingSequences])
def test_to_compile_needs_a_compiler(data):
    from torch._inductor import config

    wanted = r"^data\.compile=true: needs a C\+\+ compiler, and none was found"
    with config.patch({"cpp.cxx": ("no_such_compiler",)}), pytest.raises(UserError, match=wanted):
        data(compile=True)
