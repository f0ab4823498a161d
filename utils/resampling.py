"""Chains of bilinear resizes and crops, with a gradient of two matrix products.

A resize treats rows and columns apart, so a whole chain is X -> A X B^T. Its gradient is A^T G B, which takes no map of
an intermediate size and is the same on every run; torch's own scatters with atomic sums on CUDA, in any order.

Letters: n maps, h w size before, H W size after.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Size = tuple[int, int]


@dataclass(frozen=True)
class Resize:
    """Resize to `size`, pixel centres aligned, and crop the top left corner of size `crop`."""

    size: Size
    crop: Size
    antialias: bool = False

    def axis_resize(self, axis: int) -> AxisResize:
        """What it does along one axis."""
        return AxisResize(self.size[axis], self.crop[axis], self.antialias)


@dataclass(frozen=True)
class AxisResize:
    """A resize of one axis."""

    size: int
    crop: int
    antialias: bool

    def on_rows(self, width: int) -> Resize:
        """The resize of the rows of maps whose width stays."""
        return Resize((self.size, width), (self.crop, width), self.antialias)


Chain = tuple[Resize, ...]
BLOCK = 1024
"""Unit vectors of an operator that are resized at a time; of a long image all would take its side squared."""
LARGEST_SHRINK = 64
"""CUDA's antialiased kernel refuses to divide a side by more than about 94."""


def resample(maps: Tensor, *chain: Resize) -> Tensor:
    """Apply resizes one after the other to maps (n, h, w) of any type: (n, H, W) float32."""
    result: Tensor = _Resample.apply(maps.float(), chain)
    return result


def _apply(maps: Tensor, chain: Chain) -> Tensor:
    if len(maps) == 0:  # which CUDA's kernels refuse
        return maps.new_zeros(0, *chain[-1].crop)
    stacked = maps[:, None]
    for step in chain:
        stacked = _resized(stacked, step)[:, :, : step.crop[0], : step.crop[1]]
    return stacked[:, 0]


def _resized(stacked: Tensor, step: Resize) -> Tensor:
    resize = partial(F.interpolate, mode="bilinear", align_corners=False, antialias=step.antialias)
    if step.antialias and step.size[1] == 1:
        # On a CPU torch gives wrong values for a width of 1, and right ones for a height of 1.
        return resize(stacked.mT.contiguous(), step.size[::-1]).mT
    if step.antialias and stacked.is_cuda and _shrink(stacked, step) > LARGEST_SHRINK:
        return _by_matrices(stacked, step)
    return resize(stacked, step.size)


def _shrink(stacked: Tensor, step: Resize) -> float:
    return max(before / after for before, after in zip(stacked.shape[2:], step.size, strict=True))


def _by_matrices(stacked: Tensor, step: Resize) -> Tensor:
    """The same resize as two matrix products, with operators that the CPU made."""
    rows, columns = (
        _matrix(length, (AxisResize(after, after, step.antialias),), torch.device("cpu")).to(stacked.device)
        for length, after in zip(stacked.shape[2:], step.size, strict=True)
    )
    return rows @ stacked @ columns.T


@lru_cache(maxsize=64)
def _matrix(length: int, resizes: tuple[AxisResize, ...], device: torch.device) -> Tensor:
    """(after, length) matrix of resizes along one axis: what they make of each unit vector."""
    parts = []
    for start in range(0, length, BLOCK):
        units = torch.zeros(1, length, min(BLOCK, length - start), device=device)
        units[0].diagonal(-start).fill_(1)
        parts.append(_apply(units, tuple(resize.on_rows(units.shape[2]) for resize in resizes))[0])
    return torch.cat(parts, dim=1)


class _Resample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, chain: Chain) -> Tensor:
        ctx.chain, ctx.size = chain, maps.shape[1:]
        return _apply(maps, chain)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        rows, columns = (
            _matrix(length, tuple(step.axis_resize(axis) for step in ctx.chain), gradient.device)
            for axis, length in enumerate(ctx.size)
        )
        return rows.T @ (gradient @ columns), None
