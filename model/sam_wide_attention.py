"""Attention of SAM's image encoder for a GPU: relative positions as further columns of queries and keys.

The bias of a query and a key is the query times two rows of the tables, by how far the key's row and column are from
its own. A key that tells its row and its column by ones lets the product of query and key add both: the bias, which has
an element for each pair, is never made, and attention takes kernels without a mask.

Letters: B images or windows, S side of their grid, C the width, N heads, D the width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

ALIGNMENT = 8
"""Attention kernels want widths that are a multiple of it, and so do matrix products."""


def wide_attention(qkv: Tensor, positions: Tensor, places: Tensor, heads: int) -> Tensor:
    """Attention of each grid over itself.

    Args:
        qkv: (B, S, S, 3 C) queries, keys and values.
        positions: from `wide_positions`, of both tables.
        places: from `wide_places`.
        heads: N.

    Returns:
        (B, S, S, C).
    """
    size, side, _, _ = qkv.shape
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).unbind(3)
    scale = q.shape[-1] ** -0.5
    biases = torch.bmm(q.flatten(0, 2).transpose(0, 1), positions.expand(heads, -1, -1))
    by_row, by_column = biases.unflatten(1, (size, side, side)).split(positions.shape[1] // 2, dim=-1)
    # Of a query in row r, the positions r to r + S - 1 are those towards the keys' rows, the last row first.
    by_row = by_row.unfold(-1, side, 1)[..., :side, :].diagonal(dim1=2, dim2=4).permute(1, 4, 2, 0, 3)
    by_column = by_column.unfold(-1, side, 1)[..., :side, :].diagonal(dim1=3, dim2=4).permute(1, 2, 4, 0, 3)
    rest = q.new_zeros(()).expand(*q.shape[:-1], places.shape[-1] - 2 * side)
    queries = torch.cat([q, by_row, by_column, rest], dim=-1)
    keys = torch.cat([k, places.unsqueeze(2).expand(*k.shape[:-1], -1)], dim=-1)
    queries, keys, values = (part.flatten(1, 2).transpose(1, 2) for part in (queries, keys, v))
    attended = scaled_dot_product_attention(queries, keys, values, scale=scale)
    return attended.transpose(1, 2).flatten(2).unflatten(1, (side, side))


def wide_positions(by_row: Tensor, by_column: Tensor) -> Tensor:
    """Both (2 S - 1, D) tables as one (D, W) factor of the queries, each filled up with zeros to half of W.

    Divided by the scale of attention, which SAM gives to the product of query and key alone.
    """
    length, width = by_row.shape
    tables = torch.stack([by_row, by_column]) * width**0.5
    return pad(tables, (0, 0, 0, -length % ALIGNMENT)).flatten(0, 1).t()


def wide_places(table: Tensor) -> Tensor:
    """Further columns (S, S, E) of the keys of a grid: a one for the row, the last row first, and one for the column.

    Args:
        table: (2 S - 1, D), for its shape, dtype and device.
    """
    side = (len(table) + 1) // 2
    ones = torch.eye(side, dtype=table.dtype, device=table.device).flip(0)
    rows, columns = ones.unsqueeze(1).expand(-1, side, -1), ones.unsqueeze(0).expand(side, -1, -1)
    return pad(torch.cat([rows, columns], dim=-1), (0, -(table.shape[1] + 2 * side) % ALIGNMENT))
