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


def content_box(masks: Tensor, margin: int) -> tuple[slice, slice, slice]:
    """Index of a part of masks (n, h, w) outside which all of them are zero; everything where all of them are."""
    if min(masks.shape[1:]) <= 2 * margin:
        return slice(None), slice(None), slice(None)
    used = masks.any(dim=0)
    lines = [used.any(dim=other).int() for other in (1, 0)]
    ends = [end for line in lines for end in (line.argmax(), len(line) - line.flip(0).argmax())]
    top, bottom, left, right = torch.stack(ends).tolist()  # one host wait
    rows, columns = (slice(max(low - margin, 0), high + margin) for low, high in ((top, bottom), (left, right)))
    return slice(None), rows, columns
