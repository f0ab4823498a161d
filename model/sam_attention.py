"""Attention of SAM's image encoder: the published weights and results, less work and less memory.

Letters: B images or windows, H and W the sides of their grid, C the width, N heads, D the width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from model.sam_wide_attention import wide_attention, wide_places, wide_positions
from utils.derived import Derived

MAX_BIAS = 64 * 2**20
"""Elements of the bias of relative positions that exist at once, or those of one row of queries: 128 MiB in bf16.

A global layer of ViT-H has four times as many for one image: 16 heads, 4096 queries, 4096 keys.
"""


class SamAttention(nn.Module):
    """Attention over the whole grid or within windows; the block around it knows nothing of windows.

    The published code pads the grid with zeros before it projects; padded keys take part, as the projection's bias.
    On a CPU the bias is put there, and tokens of the grid alone are projected and ask; a GPU prefers few and equal
    windows, and no bias of relative positions (`sam_wide_attention`).

    Args:
        published: segment-anything's attention, whose layers and tables this one takes over under the same names.
        window: side of a window; 0 for the whole grid.
    """

    def __init__(self, published: Any, window: int) -> None:
        super().__init__()
        self.num_heads: int = published.num_heads
        self.window = window
        self.qkv: nn.Linear = published.qkv
        self.proj: nn.Linear = published.proj
        self.rel_pos_h: nn.Parameter = published.rel_pos_h
        self.rel_pos_w: nn.Parameter = published.rel_pos_w
        self._rows, self._columns = Derived(), Derived()
        self._wide_positions, self._wide_places = Derived(), Derived()

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        return self.attend_on_gpu(tokens) if tokens.is_cuda else self.attend_on_cpu(tokens)

    def attend_on_gpu(self, tokens: Tensor) -> Tensor:
        """`forward`, for a GPU."""
        _, height, width, _ = tokens.shape
        if not self.window:
            return self.proj(self._attend_wide(self.qkv(tokens)))
        padded = pad(tokens, (0, 0, 0, -width % self.window, 0, -height % self.window))
        attended = self._attend_wide(self.qkv(_partition(padded, self.window, self.window)))
        return self.proj(_join(attended, padded.shape[1:3])[:, :height, :width])

    def _attend_wide(self, qkv: Tensor) -> Tensor:
        positions = self._wide_positions.get(wide_positions, self.rel_pos_h, self.rel_pos_w)
        places = self._wide_places.get(wide_places, self.rel_pos_h)
        return wide_attention(qkv, positions, places, self.num_heads)

    def attend_on_cpu(self, tokens: Tensor) -> Tensor:
        """`forward`, for a CPU."""
        _, height, width, _ = tokens.shape
        qkv = self.qkv(tokens)
        if not self.window:
            return self.proj(self._attend(qkv, qkv))
        padded = _pad(qkv, self.qkv.bias.to(qkv.dtype), self.window)
        bands = [
            torch.cat([self._attend_windows(qkv, padded, rows, columns) for columns in _spans(width, self.window)], 2)
            for rows in _spans(height, self.window)
        ]
        return self.proj(torch.cat(bands, dim=1))

    def _attend_windows(self, qkv: Tensor, padded: Tensor, rows: slice, columns: slice) -> Tensor:
        """Attention of one part of the grid, whole windows or what is left of them, over its padded windows."""
        queries = qkv[:, rows, columns]
        # Keys up to whole windows; queries of the grid alone, in windows that may be narrower.
        below, right = (-(-side // self.window) * self.window for side in queries.shape[1:3])
        keys = padded[:, rows.start : rows.start + below, columns.start : columns.start + right]
        sides = (min(side, self.window) for side in queries.shape[1:3])
        attended = self._attend(_partition(queries, *sides), _partition(keys, self.window, self.window))
        return _join(attended, queries.shape[1:3])

    def _attend(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Attention over grids of keys (B, H, W, 3 C) by the queries at their top left (B, h, w, 3 C): (B, h, w, C).

        Some rows of queries at a time, where the bias of all is too large.
        """
        size, height, width, _ = queries.shape
        (q, _, _), (_, k, v) = (
            grid.unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 4, 1, 2, 5) for grid in (queries, keys)
        )
        rows = self._rows.get(_by_difference, self.rel_pos_h)[:height]
        columns = self._columns.get(_by_difference, self.rel_pos_w)[:width]
        shared = (k.flatten(2, 3), v.flatten(2, 3), columns)
        count = max(1, MAX_BIAS // (size * self.num_heads * width * shared[0].shape[2]))
        if count >= height:
            return _attend_rows(q, rows, *shared)
        # Recomputed in the backward pass, which would otherwise hold the bias of all rows.
        parts = [
            checkpoint(_attend_rows, part, part_rows, *shared, use_reentrant=False, preserve_rng_state=False)
            for part, part_rows in zip(q.split(count, dim=2), rows.split(count), strict=True)
        ]
        return torch.cat(parts, dim=1)


def _attend_rows(q: Tensor, rows: Tensor, k: Tensor, v: Tensor, columns: Tensor) -> Tensor:
    """Attention of R rows of queries over all keys, biased by q (not scaled) times its positions towards the key.

    Args:
        q: (B, N, R, w, D).
        rows: (R, H, D), by the rows of query and key.
        k, v: (B, N, H W, D).
        columns: (w, W, D), by the columns of query and key.

    Returns:
        (B, R, w, C).
    """
    # The sum takes the order of its first term, which must be that of attention, or else the sum is copied.
    by_row = torch.einsum("bnrwd,rkd->bnrwk", q, rows).contiguous()
    by_column = torch.einsum("bnrwd,wkd->bnrwk", q, columns)
    bias = (by_row.unsqueeze(-1) + by_column.unsqueeze(-2)).flatten(4).flatten(2, 3)
    attended = scaled_dot_product_attention(q.flatten(2, 3), k, v, attn_mask=bias)
    return attended.transpose(1, 2).flatten(2).unflatten(1, q.shape[2:4])


def _by_difference(table: Tensor) -> Tensor:
    """Positions of a (2 S - 1, D) table for S queries and S keys of one axis, (S, S, D)."""
    steps = torch.arange((len(table) + 1) // 2, device=table.device)
    return table[steps[:, None] - steps + len(steps) - 1]


def _spans(side: int, window: int) -> list[slice]:
    """Where whole windows lie along a side, and what remains after them."""
    whole = side - side % window
    return [span for span in (slice(0, whole), slice(whole, side)) if span.start < span.stop]


def _pad(grid: Tensor, value: Tensor, window: int) -> Tensor:
    """Fill (B, H, W, C) up to whole windows, below and to the right, with a (C) value."""
    size, height, width, _ = grid.shape
    below, right = -height % window, -width % window
    if not below and not right:
        return grid
    padded = value.expand(size, height + below, width + right, -1).clone()
    padded[:, :height, :width] = grid
    return padded


def _partition(grid: Tensor, height: int, width: int) -> Tensor:
    """Cut (B, H, W, C) into (B * windows, height, width, C), row by row."""
    cut = grid.unflatten(2, (-1, width)).unflatten(1, (-1, height))
    return cut.transpose(2, 3).flatten(0, 2)


def _join(windows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Put windows back into grids of a shape (H, W)."""
    (height, width), (_, below, right, _) = shape, windows.shape
    cut = windows.unflatten(0, (-1, height // below, width // right))
    return cut.transpose(2, 3).flatten(3, 4).flatten(1, 2)
