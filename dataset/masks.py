"""Masks from annotations: polygon files in the style of LabelMe, and the five COCO/REFER segmentation forms.

Points are (x, y) in pixels of the image; sizes are (height, width).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from dataset.run_lengths import decode_runs
from dataset.sizes import refuse_huge
from utils.errors import DataError
from utils.shown import shown

IGNORE = 255
"""Value of pixels that belong to no class."""

FURTHEST = 100_000
"""Coordinates beyond this many pixels are mistakes, and would overflow what draws them."""

_LONGEST = 5_000_000
"""Longest ring in pixels: pycocotools takes memory for five points a pixel, and counts them in 32 bits."""

_UNIT = 1 << 16
"""One pixel in the fixed-point numbers of the scan-line rule."""


def _truncating_divide(numerator: int, denominator: int) -> int:
    quotient = abs(numerator) // abs(denominator)
    return quotient if (numerator < 0) == (denominator < 0) else -quotient


def _edge(
    start: tuple[int, int], end: tuple[int, int], height: int, width: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows that an edge crosses and where, in 1/65536 pixels; None for a level edge."""
    (x0, y0), (x1, y1) = start, end
    if y0 == y1:
        return None
    first, last = (x0 * _UNIT, y0), (x1 * _UNIT, y1)
    if min(x0, x1, y0, y1) >= 0 and max(x0, x1) < width and max(y0, y1) < height:
        first, last = (first[0] + _UNIT // 2, y0), (last[0] + _UNIT // 2, y1)
    else:
        _, inner0, inner1 = cv2.clipLine((0, 0, width, height), start, end)
        if inner0[1] != inner1[1]:
            first, last = (inner0[0] * _UNIT, inner0[1]), (inner1[0] * _UNIT, inner1[1])
    slope = _truncating_divide(last[0] - first[0], last[1] - first[1])
    anchor_x, anchor_y = first if y0 < y1 else last
    rows = np.arange(max(min(y0, y1), 0), min(max(y0, y1), height), dtype=np.int64)
    return rows, anchor_x + (rows - anchor_y) * slope


def _interior(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels between the edges by the even-odd rule, as OpenCV 4.8 fills a polygon.

    OpenCV 4.11 rounds the edges differently and disagrees in about 0.1 % of the pixels of a small image. The published
    data were drawn with the older rule, so it is kept here, whatever OpenCV is installed.
    """
    corners = [(int(x), int(y)) for x, y in points]
    pairs = zip(corners[-1:] + corners[:-1], corners, strict=True)
    edges = [edge for start, end in pairs if (edge := _edge(start, end, height, width)) is not None]
    inside = np.zeros((height, width), bool)
    if not edges:
        return inside
    rows = np.concatenate([rows for rows, _ in edges])
    crossings = np.concatenate([crossings for _, crossings in edges])
    order = np.lexsort((crossings, rows))
    pixels = crossings[order] >> 16
    left, right = np.maximum(pixels[::2], 0), np.maximum(pixels[1::2] + 1, 0)
    for row, start, stop in zip(rows[order][::2], left, right, strict=True):
        inside[row, start:stop] = True
    return inside


def fill_polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Draw one closed polygon: its outline, one pixel thick, and what it encloses by the even-odd rule.

    Args:
        points: (P, 2) int32 corners, which may lie outside the image.
        height: H in pixels.
        width: W in pixels.

    Returns:
        (H, W) boolean.
    """
    outline = np.zeros((height, width), np.uint8)
    cv2.polylines(outline, [points], True, 1, 1)
    return _interior(points, height, width) | (outline > 0)


def is_finite_number(value: object) -> bool:
    """Whether a value is a number that a float can hold."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def shape_points(shape: Mapping[str, Any], name: str, path: str | Path) -> np.ndarray:
    """Corners of a shape, truncated to (P, 2) int32.

    Raises:
        DataError: if there are none, or one is no pair of finite numbers within reach of an image.
    """
    points = shape.get("points")
    if not isinstance(points, list) or not points:
        raise DataError(path, f'{name} has no points: give it a list "points" of at least one [x, y] pair.')
    for point in points:
        if not isinstance(point, list) or len(point) != 2 or not all(map(is_finite_number, point)):
            raise DataError(
                path, f"{name} has the point {shown(point)}: every point must be a pair [x, y] of finite numbers."
            )
        if max(map(abs, point)) > FURTHEST:
            raise DataError(path, f"{name} has the point {shown(point)}: coordinates must be pixels of the image.")
    return np.trunc(np.array(points, np.float64)).astype(np.int32)


def _ring_encloses(ring: Sequence[object], path: str | Path) -> bool:
    """Whether a ring has three points; refuses what pycocotools cannot draw, which steps along every edge."""
    if len(ring) % 2 or not all(map(is_finite_number, ring)):
        raise DataError(path, f"a polygon ring has {len(ring)} entries: it must be pairs of finite numbers x0, y0, ...")
    if any(abs(number) > FURTHEST for number in ring):  # type: ignore[arg-type]
        raise DataError(path, f"a polygon ring has a coordinate beyond {FURTHEST}: it must be pixels of the image")
    if len(ring) < 6:
        return False
    points = np.asarray(ring, np.float64).reshape(-1, 2)
    length = float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
    if length > _LONGEST:
        raise DataError(path, f"a polygon ring is {length:.0f} pixels long, more than {_LONGEST}: draw it again")
    return True


def _draw_rings(rings: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    united = np.zeros((height, width), bool)
    for part in coco_mask.frPyObjects(rings, height, width) if rings else ():
        united |= coco_mask.decode(part).astype(bool)
    return united


def _decode(segmentation: object, height: int, width: int, path: str | Path) -> np.ndarray:
    if isinstance(segmentation, Mapping):
        return decode_runs(segmentation, height, width, path)
    if isinstance(segmentation, list) and segmentation and all(isinstance(part, Mapping) for part in segmentation):
        return np.logical_or.reduce([decode_runs(part, height, width, path) for part in segmentation])
    if isinstance(segmentation, list) and all(isinstance(part, list) for part in segmentation):
        return _draw_rings([ring for ring in segmentation if _ring_encloses(ring, path)], height, width)
    raise DataError(
        path, f"a segmentation is {type(segmentation).__name__}: it must be a list of rings, a list of RLE, or an RLE."
    )


def decode_segmentation(
    segmentation: object, height: int, width: int, *, path: str | Path = "annotation"
) -> np.ndarray:
    """Decode any COCO or REFER segmentation; several parts are united, the input is not changed.

    Accepted: an empty list, a list of polygon rings ``[x0, y0, x1, y1, ...]``, a list of run-length masks, one mask
    with a list of runs, one mask with compressed runs (text or bytes). A ring of fewer than three points encloses
    nothing and adds nothing.

    Args:
        segmentation: the annotation's value.
        height: H in pixels.
        width: W in pixels.
        path: the file and record, for messages.

    Returns:
        (H, W) boolean.

    Raises:
        DataError: if the value has none of these forms or does not fit the image.
    """
    refuse_huge(height, width, path)
    return _decode(segmentation, height, width, path)
