"""Filters of maps: a separable Gaussian, and the part of masks that is worth filtering."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_weights(kernel: int, sigma: float) -> list[float]:
    """Weights of a Gaussian over `kernel` places, which sum to 1."""
    radius = kernel // 2
    weights = [math.exp(-((offset / sigma) ** 2) / 2) for offset in range(-radius, radius + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


def separable_filter(maps: Tensor, weights: list[float]) -> Tensor:
    """The same weights along rows and columns of (n, h, w), borders reflected.

    As shifted sums: faster than a one-channel convolution, and never TF32.
    """
    height, width = maps.shape[1:]
    radius = len(weights) // 2
    padded = F.pad(maps[:, None], (radius, radius, radius, radius), mode="reflect")[:, 0]
    rows = maps.new_zeros((len(maps), padded.shape[1], width))
    for offset, weight in enumerate(weights):
        rows.add_(padded[:, :, offset : offset + width], alpha=weight)
    blurred = maps.new_zeros(maps.shape)
    for offset, weight in enumerate(weights):
        blurred.add_(rows[:, offset : offset + height], alpha=weight)
    return blurred


Box = tuple[int, int, int, int]
"""First row and the row after the last, first column and the column after the last."""


def content_box(masks: Tensor) -> Box:
    """Box of the pixels in any of the masks (n, h, w), all of it where there are none; the host waits for a GPU."""
    used = masks.any(dim=0)
    lines = [used.any(dim=other).int() for other in (1, 0)]
    ends = [end for line in lines for end in (line.argmax(), len(line) - line.flip(0).argmax())]
    top, bottom, left, right = torch.stack(ends).tolist()
    return top, bottom, left, right


def widened(box: Box, margin: int) -> tuple[slice, slice, slice]:
    """Index of the part of maps (n, h, w) in a box and around it."""
    top, bottom, left, right = box
    return slice(None), slice(max(top - margin, 0), bottom + margin), slice(max(left - margin, 0), right + margin)
