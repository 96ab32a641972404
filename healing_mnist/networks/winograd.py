"""Convolutions of many channels by Winograd's minimal filtering (Lavin & Gray 2016, arXiv:1509.09308).

The maps are cut into tiles of 6x6 that overlap by the kernel's size less one. Tile and kernel are taken for polynomials
in two variables and evaluated at 6x6 points, where their convolution is a product of numbers; over all channels and
tiles these are 36 products of matrices. Interpolation then gives the inner part of every tile: of a 3x3 kernel 4x4
places, for 36 multiplications instead of 144.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

SIDE = 6  # of a tile
# Of the sets of five points that were tried (the sixth is infinity) these have the least error in float32: 6e-7 on
# average at results around one, where 0, +-1, +-2 have 1e-6 and the direct convolution 1.5e-7 to 3e-7.
POINTS = (0, 3 / 4, -3 / 4, 3 / 2, -3 / 2)
BLOCK = 80_000  # tiles times channels of the images computed at once, so that they stay in a core's cache


def is_faster(maps: Tensor, weight: Tensor) -> bool:
    """Whether `WinogradConvolution` of maps (B, in, H, W) and weight (out, in, k, k) beats torch's, forth and back.

    As measured on a CPU with AVX-512, one thread: a tile costs what torch takes for `share` of its inner places, and
    the kernels, which every call evaluates anew, cost 25 tiles.
    """
    out, channels, kernel_size, _ = weight.shape
    least = {3: (32, 120), 5: (48, 160)}.get(kernel_size)  # channels in and out
    if least is None or channels < least[0] or out < least[1]:
        return False
    share = 0.6 if kernel_size == 3 else 0.85
    inner, down, across = _grid(maps, kernel_size)
    return maps[:, 0].numel() > share * inner**2 * (len(maps) * down * across + 25)


def _grid(maps: Tensor, kernel_size: int) -> tuple[int, int, int]:
    """Side of the tiles' inner squares, and how many of them cover maps (B, C, H, W) down and across."""
    inner = SIDE + 1 - kernel_size
    return inner, *(-(-side // inner) for side in maps.shape[2:])


@cache
def transforms(kernel_size: int) -> list[np.ndarray]:
    """Matrices for flattened squares: kernel -> points (36, k*k), tile -> points (36, 36), points -> places (m*m, 36).

    The method of Toom and Cook, transposed: a kernel's values at the points over the denominators of Lagrange's
    polynomials, a tile's coefficients of their numerators, powers of the points for the m = 7 - k places along a side.
    """
    kernel, tile, place = (
        np.zeros(shape) for shape in ((SIDE, kernel_size), (SIDE, SIDE), (SIDE + 1 - kernel_size, SIDE))
    )
    for row, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        kernel[row] = point ** np.arange(kernel_size) / np.prod(np.subtract(point, others))
        tile[row, :-1] = np.poly(others)[::-1]
        place[:, row] = point ** np.arange(len(place))
    kernel[-1, -1] = place[-1, -1] = 1
    tile[-1] = np.poly(POINTS)[::-1]
    return [np.kron(each, each) for each in (kernel, tile, place)]


class WinogradConvolution(torch.autograd.Function):
    """A convolution with a 3x3 or 5x5 kernel that keeps height and width; its derivative is taken at the points too.

    maps (B, in, H, W) in channels_last layout, weight (out, in, k, k), bias (out,) -> (B, out, H, W) in that layout.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(maps, weight)
        cut = _Cut(maps, weight)
        kernels = cut.kernels_at_points(weight)
        out = maps.new_empty(len(maps), cut.down * cut.inner, cut.across * cut.inner, len(weight))
        for images, result in cut.some_at_a_time(maps.permute(0, 2, 3, 1), out):
            products = torch.bmm(cut.tiles_at_points(images), kernels)
            places = cut.places(result)
            torch.add((cut.of_place @ products.flatten(1)).view(places.shape), bias, out=places)
        return out[:, : cut.height, : cut.width].contiguous().permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor]:
        maps, weight = ctx.saved_tensors
        of_maps, of_weight, _ = ctx.needs_input_grad
        cut = _Cut(maps, weight)
        kernels = cut.kernels_at_points(weight)
        d_kernels, d_maps = torch.zeros_like(kernels), torch.empty_like(maps)
        d_rows = d_out.permute(0, 2, 3, 1)
        d_bias = d_rows.sum((0, 1, 2))
        beyond = cut.across * cut.inner - cut.width, cut.down * cut.inner - cut.height
        d_rows = F.pad(d_rows, (0, 0, 0, beyond[0], 0, beyond[1])) if any(beyond) else d_rows
        both = maps.permute(0, 2, 3, 1), d_maps.permute(0, 2, 3, 1)
        for images, d_images, d_result in cut.some_at_a_time(*both, d_rows):
            d_places = cut.places(d_result).reshape(cut.inner**2, -1)
            d_products = (cut.of_place.t() @ d_places).view(SIDE**2, -1, len(weight))
            if of_weight:
                d_kernels.baddbmm_(cut.tiles_at_points(images).transpose(1, 2), d_products)
            if of_maps:
                d_images.copy_(cut.images_of(torch.bmm(d_products, kernels.transpose(1, 2))))
        return d_maps if of_maps else None, cut.weight_of(d_kernels) if of_weight else None, d_bias


class _Cut:
    """Maps (B, in, H, W) cut into `down` x `across` tiles, whose inner squares of side `inner` cover them."""

    def __init__(self, maps: Tensor, weight: Tensor):
        self.channels, self.height, self.width = maps.shape[1:]
        self.kernel_size = weight.shape[-1]
        self.inner, self.down, self.across = _grid(maps, self.kernel_size)
        self.at_once = max(1, BLOCK // (self.down * self.across * (self.channels + len(weight))))
        matrices = transforms(self.kernel_size)
        self.of_kernel, self.of_tile, self.of_place = (torch.from_numpy(each).to(maps) for each in matrices)

    def some_at_a_time(self, *images: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Blocks of images of each (B, ...)."""
        return zip(*(each.split(self.at_once) for each in images), strict=True)

    def kernels_at_points(self, weight: Tensor) -> Tensor:
        """(out, in, k, k) -> (36, in, out)."""
        flat = weight.permute(2, 3, 1, 0).reshape(self.kernel_size**2, -1)
        return (self.of_kernel @ flat).view(SIDE**2, self.channels, -1)

    def weight_of(self, d_kernels: Tensor) -> Tensor:
        """The transpose of `kernels_at_points`: (36, in, out) -> (out, in, k, k)."""
        flat = self.of_kernel.t() @ d_kernels.flatten(1)
        return flat.view(self.kernel_size, self.kernel_size, self.channels, -1).permute(3, 2, 0, 1)

    def tiles_at_points(self, images: Tensor) -> Tensor:
        """(B, H, W, in) -> (36, B * tiles, in); beyond the images are zeros."""
        canvas = self._canvas(images)
        self._within(canvas).copy_(images)
        tiles = canvas.unfold(1, SIDE, self.inner).unfold(2, SIDE, self.inner).permute(4, 5, 0, 1, 2, 3)
        return (self.of_tile @ tiles.reshape(SIDE**2, -1)).view(SIDE**2, -1, self.channels)

    def images_of(self, d_tiles: Tensor) -> Tensor:
        """The transpose of `tiles_at_points`: (36, B * tiles, in) -> (B, H, W, in), where tiles overlap their sum."""
        tiles = (self.of_tile.t() @ d_tiles.flatten(1)).view(SIDE, SIDE, -1, self.down, self.across, self.channels)
        canvas = self._canvas(tiles[0, 0])
        places = self.places(canvas)
        for i, j in product(range(0, SIDE, self.inner), repeat=2):
            part = tiles[i : i + self.inner, j : j + self.inner]
            rows, columns = i // self.inner, j // self.inner
            covered = places[: part.shape[0], : part.shape[1], :, rows : rows + self.down, columns:]
            covered[..., : self.across, :].add_(part)
        return self._within(canvas)

    def _canvas(self, images: Tensor) -> Tensor:
        """Zeros (B, ..., in) under all of all tiles of (B, ..., in)."""
        beyond = -(-SIDE // self.inner) - 1  # squares that the last tile reaches over
        sides = [(count + beyond) * self.inner for count in (self.down, self.across)]
        return images.new_zeros(len(images), *sides, self.channels)

    def _within(self, canvas: Tensor) -> Tensor:
        """Where the images (B, H, W, in) lie on a canvas."""
        margin = self.kernel_size // 2
        return canvas[:, margin : margin + self.height, margin : margin + self.width]

    def places(self, images: Tensor) -> Tensor:
        """(B, H, W, C), H and W multiples of `inner`, as a view (inner, inner, B, H / inner, W / inner, C)."""
        squares = images.unflatten(2, (-1, self.inner)).unflatten(1, (-1, self.inner))
        return squares.permute(2, 4, 0, 1, 3, 5)
