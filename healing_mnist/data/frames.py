"""Pure batched rendering: uint8 base images and parameters in, float32 frames in [0, 1] out, on the images' device.

A row's frames depend on that row alone, bit for bit: not on the size of the batch, nor on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import cv2
import torch
from torch import Tensor
from torch.nn import functional as F

from healing_mnist.checks import UserError

CORNERS = 4  # squares an image has room for
PIECE = 192  # frames a CPU renders at a time, so that the work stays in its cache
EDGE = 1 + 2e-7  # normalised coordinates beyond it are outside of the image; rounding of the edge itself stays below


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 in [0, 1], any shape."""
    return images.float().div_(255)


def take(images: Tensor, index: Tensor) -> Tensor:
    """images[index], for integers `index` of any shape; up to 7 times as fast on a CPU, as it copies whole images."""
    return images.index_select(0, index.flatten()).unflatten(0, index.shape)


def rotate(images: Tensor, angles: Tensor, which: Tensor | None = None, compile: bool = False) -> Tensor:
    """Rotate each image about its centre, bilinearly, always from the original; zero outside.

    As ``scipy.ndimage.rotate(image, angle, order=1, reshape=False)``, to float tolerance.

    Args:
        images: (B, C, H, W) uint8.
        angles: degrees, positive = counter-clockwise. (B,) for one frame a row or (B, T) for T of them. With `which`,
            (K,) or (K, T): the few choices there are. On a CPU their tap tables are kept, 3 times as fast.
        which: (B,) int64, row i takes ``angles[which[i]]``; None when every row has angles of its own.
        compile: on a CPU by a function that torch.compile makes, once for each T and image shape; the same for any
            angles and for few. See `check_compiler`.

    Returns:
        (B, C, H, W), or (B, T, C, H, W) where T is given; float32 in [0, 1].
    """
    one_frame = angles.dim() == 1
    angles = angles.unsqueeze(1) if one_frame else angles
    piece = max(1, PIECE // angles.shape[1])  # rows
    if images.device.type != "cpu":
        angles = angles.to(images.device)
        frames = _rotate_any(images, angles if which is None else angles[which])
    elif compile:
        frames = _rotate_compiled(images, angles if which is None else angles[which])
    elif which is not None:
        frames = _rotate_choices(images, angles, which, piece)
    else:
        pieces = zip(images.split(piece), angles.split(piece), strict=True)
        frames = torch.cat([_rotate_any(*each) for each in pieces])
    return frames.squeeze(1) if one_frame else frames


def add_squares_(frames: Tensor, sides: Tensor, largest: int, corners: int = 1, compile: bool = False) -> Tensor:
    """Paint white squares into the corners of frames (..., C, H, W), in place; returns `frames`.

    Args:
        sides: (...) integers, the side in pixels for each frame, 0 = no square.
        largest: upper bound of `sides`, at most H and W; said so that nothing has to be read back from the device.
        corners: how many squares a frame has, in the order top-left, top-right, bottom-left, bottom-right.
        compile: as in `rotate`.
    """
    height, width = frames.shape[-2:]
    near = torch.arange(largest, device=frames.device)  # distance of a pixel from the corner
    far = near.flip(0)
    first, last_row, last_column = slice(largest), slice(height - largest, height), slice(width - largest, width)
    for rows, columns, y, x in (
        (first, first, near, near),
        (first, last_column, near, far),
        (last_row, first, far, near),
        (last_row, last_column, far, far),
    )[:corners]:
        corner = frames[..., rows, columns]
        if compile and frames.device.type == "cpu" and len(frames) > 1:
            _compiled(_paint_)(*_of_any_length(corner, sides), y, x)
        else:
            _paint_(corner, sides, y, x)
    return frames


def _paint_(corner: Tensor, sides: Tensor, y: Tensor, x: Tensor) -> None:
    sides = sides[..., None, None, None]
    corner.masked_fill_((y[:, None] < sides) & (x < sides), 1)


def check_compiler(setting: str) -> None:
    """Raise a `UserError` that names `setting` where torch.compile finds no C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler  # takes a second to import
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise UserError(f"{setting}: needs a C++ compiler, and none was found (g++, or what CXX names)") from None


def _rotate_any(images: Tensor, angles: Tensor) -> Tensor:
    """(B, C, H, W) and (B, T) -> (B, T, C, H, W) for any angles: a sampling grid for each frame."""
    (batch, channels, height, width), time = images.shape, angles.shape[1]
    # Double (which "mps" has not), as a float32 cosine may differ in its last bit with its place in the vector.
    radians = torch.deg2rad(angles if angles.device.type == "mps" else angles.double())
    turn = torch.complex(radians.cos().float(), radians.sin().float())  # (B, T)
    # With positions as complex numbers x + iy, the place a pixel is taken from is one product. Rows count downwards, so
    # exp(i a) takes pixels from clockwise of where they go, which turns the picture counter-clockwise.
    source = turn.view(-1, 1) * _positions(height, width, images.device)  # (B*T, H*W)
    grid = torch.view_as_real(source).view(batch, time * height, width, 2)
    if height != width:
        grid[..., 1] *= (width - 1) / (height - 1)
    grid.add_(F.hardshrink(grid, EDGE), alpha=1e3)  # beyond the edge goes far out, where samples are zero, as in SciPy
    # The frames of a row lie below each other in one tall grid: the image need not be copied T times.
    frames = F.grid_sample(to_float(images), grid, align_corners=True)
    frames.clamp_(max=1)  # the weights of four taps may sum to 1 + 1e-7
    return frames.view(batch, channels, time, height, width).transpose(1, 2)


def _positions(height: int, width: int, device: torch.device) -> Tensor:
    """(H*W,) complex x + iy of each pixel, from the centre, where 1 is half the width (between pixel centres)."""
    y = torch.arange(height, device=device) - (height - 1) / 2
    x = torch.arange(width, device=device) - (width - 1) / 2
    return torch.complex(*torch.broadcast_tensors(x, y[:, None])).flatten() * (2 / (width - 1))


def _rotate_choices(images: Tensor, angles: Tensor, which: Tensor, piece: int) -> Tensor:
    """(B, C, H, W), (K, T), (B,) -> (B, T, C, H, W) on a CPU: rows of equal angles together, at most `piece` of them.

    Rotating by a fixed angle is a sparse matrix with 4 entries a row. With pixels as rows and images as columns, each
    pixel of the result is a weighted sum of 4 rows, which is what an embedding bag computes.
    """
    (batch, channels, height, width), time = images.shape, angles.shape[1]
    taps, weights = _tap_tables(tuple(map(tuple, angles.tolist())), height, width)
    order = which.argsort(stable=True)
    columns = to_float(take(images, order)).view(-1, height * width).t()  # (H*W, B*C)
    frames = torch.empty(batch * channels, time * height * width)
    start = 0
    for choice, rows in enumerate(which.bincount(minlength=len(angles)).tolist()):
        end = start + rows * channels
        for first in range(start, end, piece):
            last = min(first + piece, end)
            table = torch.empty(height * width, last - first).copy_(columns[:, first:last])
            rotated = F.embedding_bag(taps[choice], table, per_sample_weights=weights[choice], mode="sum")
            # Into these rows of `frames`, 5 times as fast as torch's transposed copy.
            cv2.transpose(rotated.numpy(), frames[first:last].numpy())
        start = end
    frames = frames.view(batch, channels, time, height, width).index_select(0, order.argsort())
    return frames.transpose(1, 2)


def _rotate_compiled(images: Tensor, angles: Tensor) -> Tensor:
    """(B, C, H, W) and (B, T) -> (B, T, C, H, W) on a CPU: one loop that keeps nothing but its result."""
    if len(images) == 1:  # torch.compile takes a length of 1 for another case
        return _rotate_compiled(images.repeat(2, 1, 1, 1), angles.repeat(2, 1))[:1]
    height, width = images.shape[2:]
    radians = torch.deg2rad(angles.double())
    rows = _of_any_length(images, radians.cos().float(), radians.sin().float())
    with torch.no_grad():
        frames = _compiled(_rotate_by_formula)(*rows, *_pixels(height, width))
    return frames.unflatten(-1, (height, width)).transpose(1, 2)


def _of_any_length(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tell torch.compile that the first dimension varies; all others are fixed, which makes faster loops."""
    for each in tensors:
        torch._dynamo.mark_dynamic(each, 0)
    return tensors


@cache
def _compiled(function: Callable) -> Callable:
    options = {
        "assert_indirect_indexing": False,  # saves a third of the time: the formula cannot leave the image
        "realize_opcount_threshold": 1000,  # all of it in one loop: the four pixels are not worth storing
        "realize_reads_threshold": 100,
    }
    return torch.compile(function, dynamic=False, options=options)


def _rotate_by_formula(images: Tensor, cos: Tensor, sin: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """(B, C, H, W), (B, T), (B, T), (H*W,), (H*W,) -> (B, C, T, H*W)."""
    height, width = images.shape[2:]
    half_width, half_height = (width - 1) / 2, (height - 1) / 2
    cos, sin = cos[..., None], sin[..., None]
    source_x, source_y = cos * x - sin * y, sin * x + cos * y  # (B, T, H*W), from the centre
    inside = (source_x.abs() <= half_width * EDGE) & (source_y.abs() <= half_height * EDGE)
    source_x = (source_x + half_width).clamp(0, width - 1)
    source_y = (source_y + half_height).clamp(0, height - 1)
    left, top = source_x.int(), source_y.int()
    first = torch.where(inside, top * width + left, height * width)
    right_share, lower_share = (source_x - left)[:, None], (source_y - top)[:, None]
    upper_left, upper_right, lower_left, lower_right = _four_pixels(images, first)
    upper = upper_left + (upper_right - upper_left) * right_share
    lower = lower_left + (lower_right - lower_left) * right_share
    return ((upper + (lower - upper) * lower_share) / 255).clamp(max=1)


def _four_pixels(images: Tensor, first: Tensor) -> tuple[Tensor, ...]:
    """Pixel `first` of each image, those on its right, below it and below on the right, as float 0..255.

    (B, C, H, W) uint8 and (B, T, N) int32 -> four of (B, C, T, N). Pixel H*W is black. Beyond the right edge the next
    row goes on: pixels there have no weight.
    """
    batch, channels, height, width = images.shape
    count = height * width
    # The four are packed into one integer, so that one is looked up instead of four. torch.cat, unlike F.pad, makes a
    # tensor of it rather than a part of the loop that reads it.
    flat = torch.cat((images.flatten(2), images.new_zeros(batch, channels, width + 1)), -1).int()
    packed = (
        flat[..., :count]
        | (flat[..., 1 : count + 1] << 8)
        | (flat[..., width : count + width] << 16)
        | (flat[..., width + 1 : count + width + 1] << 24)
    )
    packed = torch.cat((packed, packed.new_zeros(batch, channels, 1)), -1)
    four = packed.gather(-1, first.flatten(1)[:, None].expand(-1, channels, -1)).unflatten(-1, first.shape[1:])
    return tuple(((four >> shift) & 255).float() for shift in (0, 8, 16, 24))


@lru_cache(maxsize=16)
def _pixels(height: int, width: int) -> tuple[Tensor, Tensor]:
    """y and x of each pixel from the centre, (H*W,) each. Kept: to divide an index by the width would cost more."""
    y, x = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    return y.repeat_interleave(width), x.repeat(height)


@lru_cache(maxsize=16)
def _tap_tables(angles: tuple[tuple[float, ...], ...], height: int, width: int) -> tuple[Tensor, Tensor]:
    """The 4 source pixels of each pixel of each frame and their weights: (K, T*H*W, 4) int32 and float32."""
    radians = torch.deg2rad(torch.tensor(angles, dtype=torch.float64))[..., None, None]
    cos, sin = radians.cos(), radians.sin()
    y = torch.arange(height, dtype=torch.float64)[:, None] - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    # Rounded to 1e-12, so that multiples of 90 degrees hit the pixels and the edge exactly.
    source_x = (cos * x - sin * y + (width - 1) / 2).round(decimals=12)
    source_y = (sin * x + cos * y + (height - 1) / 2).round(decimals=12)
    inside = (source_x >= 0) & (source_x <= width - 1) & (source_y >= 0) & (source_y <= height - 1)
    left, top = source_x.floor().clamp(0, width - 2), source_y.floor().clamp(0, height - 2)
    right_share, lower_share = source_x - left, source_y - top
    first = top * width + left
    taps = torch.stack((first, first + 1, first + width, first + width + 1), dim=-1)  # (K, T, H, W, 4)
    weights = torch.stack(
        (
            (1 - lower_share) * (1 - right_share),
            (1 - lower_share) * right_share,
            lower_share * (1 - right_share),
            lower_share * right_share,
        ),
        dim=-1,
    )
    weights = weights * inside[..., None]
    # To float32 downwards: with rounding to nearest the four could sum to more than 1, and a white pixel exceed it.
    nearest = weights.float()
    weights = torch.where(nearest > weights, nearest.nextafter(torch.zeros(())), nearest)
    return taps.int().view(len(angles), -1, 4), weights.view(len(angles), -1, 4)
