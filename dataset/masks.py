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

from utils.errors import DataError

IGNORE = 255
"""Value of pixels that belong to no class."""

_FURTHEST = 1_000_000
"""Coordinates beyond this many pixels are mistakes, and would overflow the scan-line rule."""

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


def _is_finite_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def shape_points(shape: Mapping[str, Any], name: str, path: str | Path) -> np.ndarray:
    """Corners of a shape, truncated to (P, 2) int32.

    Raises:
        DataError: if there are none, or one is no pair of finite numbers within reach of an image.
    """
    points = shape.get("points")
    if not isinstance(points, list) or not points:
        raise DataError(path, f'{name} has no points: give it a list "points" of at least one [x, y] pair.')
    for point in points:
        if not isinstance(point, list) or len(point) != 2 or not all(map(_is_finite_number, point)):
            raise DataError(
                path, f"{name} has the point {point!r}: every point must be a pair [x, y] of finite numbers."
            )
        if max(map(abs, point)) > _FURTHEST:
            raise DataError(path, f"{name} has the point {point!r}: coordinates must be pixels of the image.")
    return np.trunc(np.array(points, np.float64)).astype(np.int32)


def paint_shapes(shapes: object, height: int, width: int, *, path: str | Path) -> np.ndarray:
    """Paint labelled polygons into one mask, smaller ones over larger ones.

    Every shape is drawn by itself (points truncated to whole pixels, outline included); then all are painted by
    descending area, equal areas in file order: 255 if the label contains "ignore", else 1. Shapes labelled "flag" are
    left out. Case does not matter. Points outside the image are allowed as long as some of the shape lies inside.

    Args:
        shapes: list of objects with "label" and "points".
        height: H in pixels.
        width: W in pixels.
        path: the file the shapes come from, for messages.

    Returns:
        (H, W) uint8 with the values 0, 1 and 255.

    Raises:
        DataError: if the list or a shape is malformed, or a shape lies outside the image.
    """
    if not isinstance(shapes, list):
        raise DataError(path, f'"shapes" is {type(shapes).__name__}, not a list: it must list the polygons.')
    drawn: list[tuple[int, np.ndarray]] = []
    for index, shape in enumerate(shapes):
        name = f"shape {index}"
        if not isinstance(shape, Mapping) or not isinstance(shape.get("label"), str):
            raise DataError(path, f'{name} has no label: every shape must be an object with a text "label".')
        label = shape["label"].lower()
        if label == "flag":
            continue
        region = fill_polygon(shape_points(shape, name, path), height, width)
        if not region.any():
            raise DataError(
                path, f"{name} lies outside the image of {height} x {width} pixels: correct its points or remove it."
            )
        drawn.append((IGNORE if "ignore" in label else 1, region))
    painted = np.zeros((height, width), np.uint8)
    for value, region in sorted(drawn, key=lambda entry: -int(np.count_nonzero(entry[1]))):
        painted[region] = value
    return painted


def _ring_encloses(ring: Sequence[object], path: str | Path) -> bool:
    if len(ring) % 2 or not all(map(_is_finite_number, ring)):
        raise DataError(path, f"a polygon ring has {len(ring)} entries: it must be pairs of finite numbers x0, y0, ...")
    if any(abs(number) > _FURTHEST for number in ring):  # type: ignore[arg-type]
        raise DataError(path, f"a polygon ring has a coordinate beyond {_FURTHEST}: it must be pixels of the image")
    return len(ring) >= 6


def _compress(run_lengths: Mapping[str, Any], height: int, width: int, path: str | Path) -> dict[str, Any]:
    """One RLE object as the compressed form that pycocotools reads; the input stays as it is."""
    counts, size = run_lengths.get("counts"), run_lengths.get("size")
    if not isinstance(size, list | tuple) or list(size) != [height, width]:
        raise DataError(path, f"a run-length mask has size {size}, but the image has [{height}, {width}].")
    if isinstance(counts, str | bytes):
        return {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}
    if not isinstance(counts, list) or not all(isinstance(run, int) and run >= 0 for run in counts):
        raise DataError(path, '"counts" of a run-length mask must be a text or a list of whole numbers from 0.')
    if sum(counts) != height * width:
        raise DataError(path, f"the runs of a mask cover {sum(counts)} pixels, but the image has {height * width}.")
    return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)


def _encode(segmentation: object, height: int, width: int, path: str | Path) -> list[dict[str, Any]]:
    if isinstance(segmentation, Mapping):
        return [_compress(segmentation, height, width, path)]
    if isinstance(segmentation, list) and all(isinstance(part, Mapping) for part in segmentation):
        return [_compress(part, height, width, path) for part in segmentation]
    if isinstance(segmentation, list) and all(isinstance(part, list) for part in segmentation):
        rings = [ring for ring in segmentation if _ring_encloses(ring, path)]
        return coco_mask.frPyObjects(rings, height, width) if rings else []
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
    parts = _encode(segmentation, height, width, path)
    united = np.zeros((height, width), bool)
    for part in parts:
        try:
            united |= coco_mask.decode(part).astype(bool)
        except ValueError as error:
            raise DataError(path, f"a run-length mask cannot be decoded ({error}): write it again.") from error
    return united
