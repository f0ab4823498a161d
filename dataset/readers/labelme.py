"""LabelMe files: the labelled polygons, rectangles, circles and masks of one image.

`NAME.json` has `shapes`, each with `label`, `points` ([x, y] in pixels of the image) and `shape_type`: a `polygon`; a
`rectangle` by two opposite corners, or all four; a `circle` by its centre and a point of its edge; a `mask` by its
first and last pixel, and `mask`, the PNG between them as base64. A shape without a type is a polygon.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dataset.masks import fill_polygon, shape_points
from dataset.readers import checks
from dataset.readers.checks import MalformedError
from utils.errors import DataError

_POINTS: Mapping[str, tuple[Container[int], str]] = {
    "polygon": (range(3, 1_000_000), "3 or more"),
    "rectangle": ((2, 4), "2 or 4"),
    "circle": ((2,), "2"),
    "mask": ((2,), "2"),
}
"""How many points each type of shape has."""


def phrase_of(label: str) -> str:
    """A label as a phrase: blanks for underscores."""
    return " ".join(label.replace("_", " ").split())


def is_ignored(label: str) -> bool:
    """Whether a label marks pixels that belong neither to a phrase nor to the background."""
    return "ignore" in label.lower()


@dataclass(frozen=True, eq=False)
class Shape:
    """A shape of an image; `name` is for messages, `points` are (P, 2) float64, `png` is set for a mask."""

    name: str
    label: str
    kind: str
    points: np.ndarray
    png: str = ""

    def region(self, height: int, width: int) -> np.ndarray:
        """(H, W) boolean of the pixels it covers; of a polygon or rectangle also those on its outline.

        Raises:
            MalformedError: if there is none, or a mask cannot be decoded or reaches out of the image.
        """
        low, high = self.points.min(axis=0), self.points.max(axis=0)
        if self.kind == "mask":
            region = self._pasted(low.astype(int).tolist(), high.astype(int).tolist(), height, width)
        elif self.kind == "circle":
            centre, edge = self.points
            rows, columns = np.ogrid[0.5:height, 0.5:width]
            region = np.hypot(columns - centre[0], rows - centre[1]) <= np.hypot(*(edge - centre))
        else:
            box = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
            corners = box if self.kind == "rectangle" else self.points
            region = fill_polygon(np.trunc(corners).astype(np.int32), height, width)
        if not region.any():
            raise MalformedError(f"{self.name} has no pixel in the image of {height} x {width}: correct or remove it")
        return region

    def _pasted(self, first: list[int], last: list[int], height: int, width: int) -> np.ndarray:
        (left, top), (right, bottom) = first, last
        size = (bottom - top + 1, right - left + 1)
        try:
            data = np.frombuffer(base64.b64decode(self.png, validate=True), np.uint8)
            pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        except (ValueError, cv2.error):
            pixels = None
        if pixels is None or pixels.shape != size:
            raise MalformedError(f'{self.name}: "mask" must be a grey PNG of {size[0]} x {size[1]} pixels, as base64')
        if min(left, top) < 0 or right >= width or bottom >= height:
            raise MalformedError(f"{self.name} reaches out of the image of {height} x {width}: correct or remove it")
        region = np.zeros((height, width), dtype=bool)
        region[top : bottom + 1, left : right + 1] = pixels > 0
        return region


@dataclass(frozen=True, eq=False)
class LabelMeFile:
    """What one file says: its shapes but those labelled "flag", and of its image the name and (height, width)."""

    path: Path
    shapes: tuple[Shape, ...]
    image_name: str | None
    image_size: tuple[int, int] | None

    @property
    def phrases(self) -> tuple[str, ...]:
        """Labels as phrases, each once, in file order."""
        return tuple(dict.fromkeys(phrase_of(s.label) for s in self.shapes if not is_ignored(s.label)))

    def paint(self, height: int, width: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Paint the shapes from the largest to the smallest, so that a small "ignore" inside another shape stays one.

        Returns:
            (H, W) boolean of each phrase, all its shapes united, and (H, W) boolean of what is ignored, which is
            disjoint from them.

        Raises:
            DataError: if the image has another size than the file says, or a shape covers no pixel or cannot be read.
        """
        if self.image_size not in (None, (height, width)):
            raise DataError(
                self.path,
                f'its "imageHeight" and "imageWidth" are {self.image_size}, but its image has {(height, width)} after '
                "the rotation that the image file asks for (EXIF); annotate the image again",
            )
        try:
            regions = [shape.region(height, width) for shape in self.shapes]
        except MalformedError as error:
            raise DataError(self.path, str(error)) from error
        ignored = np.zeros((height, width), dtype=bool)
        for number in sorted(range(len(regions)), key=lambda number: -int(np.count_nonzero(regions[number]))):
            ignored[regions[number]] = is_ignored(self.shapes[number].label)
        masks = {phrase: np.zeros((height, width), dtype=bool) for phrase in self.phrases}
        for shape, region in zip(self.shapes, regions, strict=True):
            if not is_ignored(shape.label):
                masks[phrase_of(shape.label)] |= region & ~ignored
        return masks, ignored


def read_labelme(path: Path) -> LabelMeFile:
    """Read and check a file, all but the pixels of masks.

    Raises:
        DataError: naming the file, the shape and what is wrong with it.
    """
    try:
        content = json.loads(path.read_bytes())
        listed = checks.get(content, "shapes", list, "the file")
        shapes = tuple(_shape(value, f"shape {n}", path) for n, value in enumerate(listed) if not _is_flag(value))
        return LabelMeFile(path, shapes, _image_name(content), _image_size(content))
    except MalformedError as error:
        raise DataError(path, str(error)) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(path, f"this is not valid JSON ({error}); save it again") from error


def _image_name(content: Mapping[str, Any]) -> str | None:
    return checks.text(content, "imagePath", "the file") if content.get("imagePath") else None


def _image_size(content: Mapping[str, Any]) -> tuple[int, int] | None:
    if content.get("imageHeight") is None:
        return None
    return checks.get(content, "imageHeight", int, "the file"), checks.get(content, "imageWidth", int, "the file")


def _is_flag(value: Any) -> bool:
    return isinstance(value, Mapping) and str(value.get("label")).strip().lower() == "flag"


def _shape(value: Any, name: str, path: Path) -> Shape:
    label = checks.text(value, "label", name)
    kind = str(value.get("shape_type") or "polygon")
    if not phrase_of(label):
        raise MalformedError(f'{name} is labelled "{label}": give it some words')
    if kind not in _POINTS:
        raise MalformedError(
            f'{name}, "{label}", is a {kind}, which covers no region; allowed: {", ".join(_POINTS)}. Draw it as one of '
            "them, or remove it"
        )
    shape_points(value, name, path)
    points = np.array(value["points"], dtype=np.float64)
    allowed, words = _POINTS[kind]
    if len(points) not in allowed:
        raise MalformedError(f'{name}, "{label}", is a {kind} of {len(points)} points: it must have {words}')
    return Shape(name, label, kind, points, checks.text(value, "mask", name) if kind == "mask" else "")
