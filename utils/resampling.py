"""Chains of bilinear resizes and crops, with a gradient of two matrix products.

A resize treats rows and columns apart, so a whole chain is X -> A X B^T. Its gradient is A^T G B, which takes no map of
an intermediate size and is the same on every run; torch's own scatters with atomic sums on CUDA, in any order.

Letters: n maps, h w size before, H W size after.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Size = tuple[int, int]


@dataclass(frozen=True)
class Resize:
    """Resize to `size`, pixel centres aligned, and keep the top left corner of size `kept`."""

    size: Size
    kept: Size
    antialias: bool = False

    def down(self, axis: int, width: int) -> Resize:
        """What it does along one axis, done to the rows of maps of a width, which stays."""
        return Resize((self.size[axis], width), (self.kept[axis], width), self.antialias)


Chain = tuple[Resize, ...]


def resample(maps: Tensor, *chain: Resize) -> Tensor:
    """Apply resizes one after the other to maps (n, h, w) of any type: (n, H, W) float32."""
    result: Tensor = _Resample.apply(maps.float(), chain)
    return result


def _run(maps: Tensor, chain: Chain) -> Tensor:
    stacked = maps[:, None]
    for step in chain:
        stacked = F.interpolate(stacked, step.size, mode="bilinear", align_corners=False, antialias=step.antialias)[
            :, :, : step.kept[0], : step.kept[1]
        ]
    return stacked[:, 0]


@lru_cache(maxsize=64)
def _operator(length: int, axis: int, chain: Chain, device: torch.device) -> Tensor:
    """(after, length) matrix of a chain along one axis: what it makes of each unit vector."""
    return _run(torch.eye(length, device=device).unsqueeze(0), tuple(step.down(axis, length) for step in chain))[0]


class _Resample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, chain: Chain) -> Tensor:
        ctx.chain, ctx.size = chain, maps.shape[1:]
        return _run(maps, chain)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        rows, columns = (_operator(length, axis, ctx.chain, gradient.device) for axis, length in enumerate(ctx.size))
        return rows.T @ (gradient @ columns), None
