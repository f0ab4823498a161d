"""COCO records of drawn objects: the forms of segmentation in use, each exactly the drawn pixels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from dataset.drawn.objects import KINDS
from tests.drawn.pictures import Picture
from utils.files import write_text

Form = Literal["polygons", "runs", "compressed", "list"]
"""Rings; an RLE of a list of runs; an RLE of compressed runs; a list of the latter."""

CATEGORIES: dict[str, int] = {kind: number for number, kind in enumerate(KINDS, start=1)}
"""Category ids of whole objects."""


def rings(mask: np.ndarray) -> list[list[int]]:
    """Rings x0, y0, x1, y1, ... along the edges of pixels, whose union is exactly an (H, W) boolean mask.

    COCO's rule fills the pixels whose centres a ring encloses. It knows no holes, so a mask with a hole is cut in two
    at the hole's left end.
    """
    found = [_corners(ring) for ring in _outlines(mask)]
    holes = [ring for ring in found if _signed_area(ring) < 0]
    if not holes:
        return [ring.ravel().tolist() for ring in found]
    columns = np.arange(mask.shape[1]) < holes[0][:, 0].min()
    return rings(mask & columns) + rings(mask & ~columns)


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Closed paths (n, 2) of lattice points x, y, one pixel a step, with the mask on the right hand."""
    following = _steps(mask)
    paths = []
    while following:
        start = point = next(iter(following))
        direction, path = following[start][0], []
        while True:
            path.append(point)
            choices = following[point]
            # Where two pixels touch at a corner, a right turn stays with the same pixel.
            right = (-direction[1], direction[0])
            direction = right if right in choices else choices[0]
            choices.remove(direction)
            if not choices:
                del following[point]
            point = (point[0] + direction[0], point[1] + direction[1])
            if point == start:
                break
        paths.append(np.array(path))
    return paths


def _steps(mask: np.ndarray) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """From each lattice point on the edge of a mask, the directions in which the edge goes on."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    neighbours = {(1, 0): padded[:-2, 1:-1], (0, 1): padded[1:-1, 2:],
                  (-1, 0): padded[2:, 1:-1], (0, -1): padded[1:-1, :-2]}  # fmt: skip
    corners = {(1, 0): (0, 0), (0, 1): (1, 0), (-1, 0): (1, 1), (0, -1): (0, 1)}
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for direction, neighbour in neighbours.items():
        x0, y0 = corners[direction]
        for y, x in np.argwhere(inner & ~neighbour).tolist():
            steps.setdefault((x + x0, y + y0), []).append(direction)
    return steps


def _corners(path: np.ndarray) -> np.ndarray:
    """Points of a closed path where it turns."""
    before, after = path - np.roll(path, 1, axis=0), np.roll(path, -1, axis=0) - path
    return path[(before != after).any(axis=1)]


def _signed_area(ring: np.ndarray) -> int:
    x, y = ring.T
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) // 2


def segmentation(mask: np.ndarray, form: Form) -> Any:
    """An (H, W) boolean mask as an annotation's "segmentation"."""
    if form == "polygons":
        return rings(mask)
    size = list(mask.shape)
    if form == "runs":
        changes = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=False, append=~mask[-1, -1]))
        return {"size": size, "counts": np.diff(changes, prepend=0).tolist()}
    packed = {"size": size, "counts": coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()}
    return [packed] if form == "list" else packed


def box(mask: np.ndarray) -> list[int]:
    """x, y, width and height of a mask with a pixel."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]


def annotation(number: int, picture: Picture, category: int, mask: np.ndarray, form: Form) -> dict[str, Any]:
    """A COCO annotation."""
    return {
        "id": number,
        "image_id": picture.id,
        "category_id": category,
        "segmentation": segmentation(mask, form),
        "area": int(mask.sum()),
        "bbox": box(mask),
        "iscrowd": 0,
    }


def object_id(picture: Picture, index: int) -> int:
    """Id of the annotation of a picture's object."""
    return picture.id * 10 + index


def objects(picture: Picture, forms: tuple[Form, ...]) -> list[dict[str, Any]]:
    """Annotations of a picture's objects, in their order; the forms take turns."""
    return [
        annotation(object_id(picture, index), picture, CATEGORIES[item.kind], mask, forms[index % len(forms)])
        for index, (item, mask) in enumerate(zip(picture.objects, picture.masks(), strict=True))
    ]


def instances(
    pictures: Iterable[Picture],
    name: str,
    annotations: list[dict[str, Any]],
    categories: Mapping[str, int] = CATEGORIES,
) -> dict[str, Any]:
    """A COCO file; `name` of its images holds their id."""
    return {
        "info": {"description": "drawn scenes"},
        "licenses": [],
        "images": [
            {
                "id": picture.id,
                "file_name": name.format(picture.id),
                "height": picture.size[0],
                "width": picture.size[1],
            }
            for picture in pictures
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name, "supercategory": "drawn"} for name, number in categories.items()],
    }


def write_compact(path: Path, content: object) -> None:
    """Write JSON without blanks, its folder too: annotation files are long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, ensure_ascii=False, separators=(",", ":")))
