"""Masks from annotations: LabelMe polygons painted as ReasonSeg does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from utils.errors import DataError

TARGET, IGNORE = 1, 255


def _points(shape: Any, path: str, number: int, height: int, width: int) -> np.ndarray:
    """Points (n, 2) of one shape, truncated to whole pixels."""
    where = f"shape {number}"
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
        raise DataError(path, f'{where} needs a "label" such as "target"')
    try:
        points = np.asarray(shape.get("points"), dtype=np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise DataError(path, f'{where} ({shape["label"]}) needs "points", a list of at least one [x, y]')
    if not np.isfinite(points).all():
        raise DataError(path, f"{where} ({shape['label']}) has a point that is not a finite number")
    low, high = points.min(axis=0), points.max(axis=0)
    if high[0] < 0 or high[1] < 0 or low[0] >= width or low[1] >= height:
        raise DataError(
            path,
            f"{where} ({shape['label']}) lies outside the image of {width} x {height} pixels (x {low[0]:.0f} to "
            f"{high[0]:.0f}, y {low[1]:.0f} to {high[1]:.0f}); is it the annotation of another image?",
        )
    return points.astype(np.int32)


_ONE = 1 << 16  # a pixel in the fixed-point numbers in which polygon edges are followed


def _interior(points: np.ndarray, mask: np.ndarray) -> None:
    """Fill between the edges' crossings of every row, in 16-bit fixed point, a half rounded to the right."""
    height, width = mask.shape
    ends = np.stack([points, np.roll(points, -1, axis=0)], axis=1).astype(np.int64)
    ends = ends[ends[:, 0, 1] != ends[:, 1, 1]]
    flip = ends[:, 0, 1] > ends[:, 1, 1]
    ends[flip] = ends[flip][:, ::-1]
    rows = ends[:, 1, 1] - ends[:, 0, 1]
    run = (ends[:, 1, 0] - ends[:, 0, 0]) * _ONE
    slope = np.sign(run) * (np.abs(run) // rows.clip(1))
    step = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
    at_y = np.repeat(ends[:, 0, 1], rows) + step
    at_x = np.repeat(ends[:, 0, 0] * _ONE, rows) + step * np.repeat(slope, rows)
    order = np.lexsort((at_x, at_y))
    y, x = at_y[order].reshape(-1, 2)[:, 0], at_x[order].reshape(-1, 2)
    first, last = (x[:, 0] + _ONE // 2) // _ONE, (x[:, 1] + _ONE // 2) // _ONE
    seen = (y >= 0) & (y < height) & (first <= last) & (first < width) & (last >= 0)
    change = np.zeros((height, width + 1), dtype=np.int32)
    np.add.at(change, (y[seen], first[seen].clip(0)), 1)
    np.add.at(change, (y[seen], last[seen].clip(max=width - 1) + 1), -1)
    mask |= np.cumsum(change[:, :width], axis=1) > 0


def fill_polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interior and one-pixel outline of a closed polygon, (H, W) boolean.

    A pixel that an edge cuts in half belongs to the polygon on its left, as in OpenCV before 4.11, with which the
    published masks were made; the fill of later releases leaves it out.

    Args:
        points: (n, 2) int32 corners (x, y), which may lie beyond the image.
        height: of the image.
        width: of the image.
    """
    outline = np.zeros((height, width), dtype=np.uint8)
    cv2.polylines(outline, [points], True, 1, 1)
    mask = outline > 0
    _interior(points, mask)
    return mask


def paint_shapes(shapes: Sequence[Any], height: int, width: int, *, path: str) -> np.ndarray:
    """Paint labelled polygons: 1 target, 255 ignore, 0 elsewhere.

    Each shape alone is its filled interior and its outline, one pixel thick. Shapes are painted from the largest to
    the smallest, so that a small ignore region inside a target stays, and the other way round; equal areas keep the
    order of the file. A shape may reach beyond the image.

    Args:
        shapes: LabelMe shapes with `label` and `points` (x, y); "flag" shapes are dropped, and a label that contains
            "ignore" is left out of evaluation.
        height: of the image.
        width: of the image.
        path: of the annotation, for messages.

    Returns:
        (H, W) uint8.

    Raises:
        DataError: for a malformed shape, or one that lies outside the image altogether.
    """
    painted: list[tuple[int, int, np.ndarray]] = []
    for number, shape in enumerate(shapes):
        points = _points(shape, path, number, height, width)
        label = shape["label"].lower()
        if label == "flag":
            continue
        alone = fill_polygon(points, height, width)
        painted.append((int(alone.sum()), IGNORE if "ignore" in label else TARGET, alone))
    mask = np.zeros((height, width), dtype=np.uint8)
    for _, value, alone in sorted(painted, key=lambda item: -item[0]):
        mask[alone] = value
    return mask
