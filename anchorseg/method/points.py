"""Similarity as points (READ): which cells of a similarity map prompt the mask decoder, and where they point exactly.

Cells far above and far below the rest are chosen as positive and negative points; a choice has no gradient, so each
point moves to the expected place under the similarity around it, which has one.

Letters: n targets, h w cells of a similarity map, P points, H W size of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.geometry import Size, uncropped_size

POSITIVE, NEGATIVE, NEUTRAL = 1, 0, -1
REACH = 6
"""Pixels or cells around a point that its expectation takes in; exp(-REACH^2) is nothing beside 1 in float32."""


@dataclass(frozen=True)
class Points:
    """Places (n, P, 2), x and y in pixels of the image, and labels (n, P): 1 positive, 0 negative, -1 neither."""

    coordinates: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Cells:
    """Similarity of cells of a grid that covers the image.

    Attributes:
        values: (n, h, w) of the cells that have one, in [0, 1].
        first: row and column of the first of them within the grid.
        grid: rows and columns that cover the image.
    """

    values: Tensor
    first: Size
    grid: Size


def valid_cells(size: Size, side: int) -> Size:
    """Rows and columns of a square grid over a padded view that show an image, the longest side in full."""
    height, width = (max(int(length * side / max(size) + 0.5), 1) for length in size)
    return height, width


def cropped_cells(side: int, size: Size) -> tuple[Size, Size]:
    """Of a square grid over an image's middle: row and column of its first cell within the grid that covers the image,
    and that grid's rows and columns."""
    rows, columns = uncropped_size(size, side)
    return ((rows - side) // 2, (columns - side) // 2), (rows, columns)


def shrink(similarity: Tensor, divisor: int) -> Tensor:
    """Bilinear from (n, h, w) to (n, h // divisor, w // divisor)."""
    if divisor == 1:
        return similarity
    size = [max(side // divisor, 1) for side in similarity.shape[1:]]
    return F.interpolate(similarity[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def choose(values: Tensor, count: int, *, positive: float, negative: float) -> tuple[Tensor, Tensor]:
    """The first `count` cells: positive ones from the highest on, negative ones from the lowest on, then the rest.

    Args:
        values: (n, h, w) in [0, 1].
        count: most points of a map.
        positive: least value of a positive cell.
        negative: greatest value of a negative cell.

    Returns:
        Flat indices (n, P) of cells and their labels (n, P), with P the smaller of `count` and h w.
    """
    flat = values.detach().flatten(1)
    labels = torch.where(flat >= positive, POSITIVE, torch.where(flat <= negative, NEGATIVE, NEUTRAL))
    within = torch.where(labels == POSITIVE, -flat, torch.where(labels == NEGATIVE, flat, 0)).argsort(
        dim=1, stable=True
    )
    # Positive 0, negative 1, neutral 2; sorted by this while their order within a group stays.
    group = (POSITIVE - labels).gather(1, within)
    chosen = within.gather(1, group.argsort(dim=1, stable=True))[:, :count]
    return chosen, labels.gather(1, chosen)


def points_on_pixels(cells: Cells, maps: Tensor, count: int, *, positive: float = 0.8, negative: float = 0.2) -> Points:
    """Points by READ's own rule: a cell's pixel, moved to the expectation of pixels under exp(similarity - distance^2).

    Args:
        cells: to choose from.
        maps: (n, H, W) similarity in [0, 1] of each pixel, with gradient.
        count: most points of a map.
        positive: see `choose`; `negative` alike.
        negative: see `positive`.
    """
    size: Size = (maps.shape[1], maps.shape[2])
    chosen, labels = choose(cells.values, count, positive=positive, negative=negative)
    width = cells.values.shape[2]
    # In float32, as published: another precision gives another pixel in a few cells.
    rows, columns = (
        ((index + first).float() + 0.5).mul(length / along).long()
        for index, first, length, along in zip(
            (chosen // width, chosen % width), cells.first, size, cells.grid, strict=True
        )
    )
    return Points(torch.stack([columns, rows], dim=2) + _expected_offsets(maps.float(), columns, rows), labels)


def points_on_grid(values: Tensor, size: Size, count: int, *, positive: float = 0.8, negative: float = 0.2) -> Points:
    """Points by the rule of the AnchorSeg repository: a cell's centre, moved to the expectation of cells.

    The centre of cell k is k + 0.5, but the cells of the expectation stand at k, as published, so that all points lie
    some tenths of a cell towards the top left.

    Args:
        values: (n, h, w) similarity in [0, 1] of the cells that cover the image, with gradient.
        size: (H, W).
        count: most points of a map.
        positive: see `choose`; `negative` alike.
        negative: see `positive`.
    """
    chosen, labels = choose(values, count, positive=positive, negative=negative)
    height, width = values.shape[1:]
    rows, columns = torch.arange(height, device=values.device), torch.arange(width, device=values.device)
    x, y = ((chosen % width) + 0.5).clamp(max=width - 1), ((chosen // width) + 0.5).clamp(max=height - 1)
    distances = (y[..., None, None] - rows[:, None]) ** 2 + (x[..., None, None] - columns) ** 2
    weights = (values[:, None].float() - distances).flatten(2).softmax(dim=2).unflatten(2, (height, width))
    expected = torch.stack([(weights.sum(dim=2) * columns).sum(dim=2), (weights.sum(dim=3) * rows).sum(dim=2)], dim=2)
    return Points(expected * expected.new_tensor([size[1] / width, size[0] / height]), labels)


def _expected_offsets(maps: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Mean offset (n, P, 2) from pixels (n, P) under exp(similarity - distance^2) within the image.

    Offsets and not places, whose sums would lose the gradient's last digits.
    """
    height, width = maps.shape[1:]
    steps = torch.arange(-REACH, REACH + 1, device=maps.device)
    down, right = (part.flatten() for part in torch.meshgrid(steps, steps, indexing="ij"))
    y, x = rows.unsqueeze(2) + down, columns.unsqueeze(2) + right
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    places = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    near = maps.flatten(1).gather(1, places.flatten(1)).view_as(places)
    weights = (near - (down**2 + right**2)).masked_fill(~inside, -torch.inf).softmax(dim=2)
    return torch.stack([(weights * right).sum(dim=2), (weights * down).sum(dim=2)], dim=2)
