"""LabelMe files: the labelled polygons, rectangles, circles and masks of one image.

`NAME.json` has `shapes`, each with `label`, `points` ([x, y] in pixels of the image) and `shape_type`: a `polygon`; a
`rectangle` by two opposite corners, or all four; a `rotation`, which is a turned rectangle, by its four corners; a
`circle` by its centre and a point of its edge; a `mask` by its first and last pixel, and `mask`, the PNG between them
as base64. A shape without a type is a polygon.
"""

from __future__ import annotations

import base64
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.images import decode_mask
from dataset.masks import IGNORE, fill_polygon, shape_points
from dataset.readers import checks
from dataset.readers.checks import MalformedError
from utils.errors import DataError
from utils.files import read_json

_POINTS: Mapping[str, tuple[Container[int], str]] = {
    "polygon": (range(3, 1_000_000), "3 or more"),
    "rectangle": ((2, 4), "2 or 4"),
    **{kind: ((4,), "4") for kind in ("rotation", "oriented_rectangle", "rotated_rectangle", "rotated_box")},
    "circle": ((2,), "2"),
    "mask": ((2,), "2"),
}
"""How many points each type of shape has."""

_WITHOUT_REGION = ("point", "points", "line", "linestrip")


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
            region = fill_polygon(np.trunc(self._corners()).astype(np.int32), height, width)
        if not region.any():
            raise MalformedError(f"{self.name} has no pixel in the image of {height} x {width}: correct or remove it")
        return region

    def _corners(self) -> np.ndarray:
        """(P, 2) of its outline, one after the other."""
        if self.kind == "polygon":
            return self.points
        if len(self.points) == 2:
            (left, top), (right, bottom) = self.points.min(axis=0), self.points.max(axis=0)
            return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        x, y = (self.points - self.points.mean(axis=0)).T
        return self.points[np.argsort(np.arctan2(y, x), kind="stable")]

    def _pasted(self, first: list[int], last: list[int], height: int, width: int) -> np.ndarray:
        (left, top), (right, bottom) = first, last
        size = (bottom - top + 1, right - left + 1)
        try:
            pixels = decode_mask(base64.b64decode(self.png, validate=True), "the mask")
        except ValueError:
            pixels = None
        if pixels is None or pixels.shape != size:
            raise MalformedError(f'{self.name}: "mask" must be a grey PNG of {size[0]} x {size[1]} pixels, as base64')
        if min(left, top) < 0 or right >= width or bottom >= height:
            raise MalformedError(f"{self.name} reaches out of the image of {height} x {width}: correct or remove it")
        region = np.zeros((height, width), dtype=bool)
        region[top : bottom + 1, left : right + 1] = pixels
        return region


@dataclass(frozen=True, eq=False)
class LabelMeFile:
    """What one file says: its shapes but those labelled "flag", and of its image the name and (height, width)."""

    path: Path
    shapes: tuple[Shape, ...]
    image_name: str | None
    image_size: tuple[int | None, int | None]

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
        regions = self._regions(height, width)
        ignored = np.zeros((height, width), dtype=bool)
        for number in _largest_first(regions):
            ignored[regions[number]] = is_ignored(self.shapes[number].label)
        masks = {phrase: np.zeros((height, width), dtype=bool) for phrase in self.phrases}
        for shape, region in zip(self.shapes, regions, strict=True):
            if not is_ignored(shape.label):
                masks[phrase_of(shape.label)] |= region & ~ignored
        return masks, ignored

    def painted(self, height: int, width: int) -> np.ndarray:
        """Paint all shapes into one mask as ReasonSeg does: (H, W) uint8, 1 target, 255 ignored, 0 neither.

        From the largest shape to the smallest, those of equal area in file order.

        Raises:
            DataError: as `paint`.
        """
        regions = self._regions(height, width)
        painted = np.zeros((height, width), np.uint8)
        for number in _largest_first(regions):
            painted[regions[number]] = IGNORE if is_ignored(self.shapes[number].label) else 1
        return painted

    def target_regions(self, height: int, width: int) -> np.ndarray:
        """(m, H, W) boolean of each shape that is not ignored.

        Raises:
            DataError: as `paint`.
        """
        regions = zip(self._regions(height, width), self.shapes, strict=True)
        found = [region for region, shape in regions if not is_ignored(shape.label)]
        return np.stack(found) if found else np.zeros((0, height, width), dtype=bool)

    def _regions(self, height: int, width: int) -> list[np.ndarray]:
        """(H, W) boolean of each shape."""
        if any(said not in (None, has) for said, has in zip(self.image_size, (height, width), strict=True)):
            raise DataError(
                self.path,
                f'its "imageHeight" and "imageWidth" are {self.image_size}, but its image has {(height, width)} after '
                "the rotation that the image file asks for (EXIF); annotate the image again",
            )
        try:
            return [shape.region(height, width) for shape in self.shapes]
        except MalformedError as error:
            raise DataError(self.path, str(error)) from error


def _largest_first(regions: list[np.ndarray]) -> list[int]:
    return sorted(range(len(regions)), key=lambda number: -int(np.count_nonzero(regions[number])))


def read_labelme(path: Path) -> LabelMeFile:
    """Read and check a file, all but the pixels of masks.

    Raises:
        DataError: naming the file, the shape and what is wrong with it.
    """
    return parse_labelme(read_json(path, kind=dict), path)


def parse_labelme(content: Mapping[str, Any], path: Path, *, fewest_corners: int = 3) -> LabelMeFile:
    """Check the content of a file.

    Args:
        content: the object in it.
        path: of the file.
        fewest_corners: that a polygon must have; of one or two only the outline is drawn.

    Raises:
        DataError: as `read_labelme`.
    """
    try:
        listed = checks.get(content, "shapes", list, "the file")
        shapes = tuple(
            _shape(value, f"shape {n}", path, fewest_corners) for n, value in enumerate(listed) if not _is_flag(value)
        )
        sides = (_side(content, "imageHeight"), _side(content, "imageWidth"))
        return LabelMeFile(path, shapes, _image_name(content), sides)
    except MalformedError as error:
        raise DataError(path, str(error)) from error


def paint_shapes(shapes: object, height: int, width: int, *, path: str | Path) -> np.ndarray:
    """Paint a list of shapes as ReasonSeg does, see `LabelMeFile.painted`; a polygon may have one or two points.

    Raises:
        DataError: if the list or a shape is malformed, or a shape has no pixel in the image.
    """
    return parse_labelme({"shapes": shapes}, Path(path), fewest_corners=1).painted(height, width)


def _image_name(content: Mapping[str, Any]) -> str | None:
    return checks.text(content, "imagePath", "the file") if content.get("imagePath") else None


def _side(content: Mapping[str, Any], key: str) -> int | None:
    return None if content.get(key) is None else checks.get(content, key, int, "the file")


def _is_flag(value: Any) -> bool:
    return isinstance(value, Mapping) and str(value.get("label")).strip().lower() == "flag"


def _shape(value: Any, name: str, path: Path, fewest_corners: int) -> Shape:
    label = checks.text(value, "label", name)
    if not phrase_of(label):
        raise MalformedError(f'{name} is labelled "{label}": give it some words')
    kind = "polygon" if value.get("shape_type") in (None, "") else checks.text(value, "shape_type", name)
    if kind not in _POINTS:
        why = "which covers no region" if kind in _WITHOUT_REGION else "which is unknown here"
        raise MalformedError(
            f'{name}, "{label}", is a {kind:.40}, {why}; allowed: {", ".join(_POINTS)}. Draw it as one of them, or '
            "remove it"
        )
    shape_points(value, name, path)
    points = np.array(value["points"], dtype=np.float64)
    allowed, words = _POINTS[kind]
    if len(points) not in allowed and not (kind == "polygon" and len(points) >= fewest_corners):
        raise MalformedError(f'{name}, "{label}", is a {kind} of {len(points)} points: it must have {words}')
    return Shape(name, label, kind, points, checks.text(value, "mask", name) if kind == "mask" else "")
