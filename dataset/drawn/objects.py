"""Objects of the drawn scenes: one silhouette polygon each, its shading and details, and what it is good for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from dataset.masks import fill_polygon

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (222, 38, 38),
    "yellow": (250, 212, 35),
    "green": (40, 165, 70),
    "blue": (30, 95, 225),
    "purple": (150, 55, 190),
    "black": (52, 52, 58),
    "pink": (250, 130, 195),
    "white": (240, 240, 242),
}
"""Names and RGB of the colours."""

TEXTURES = ("plain", "striped", "dotted")
"""How an object's colour covers it; plain has no name in queries."""

SOLID = ("hammer", "key")
"""Kinds that show too little of their colour for a texture: they are plain."""


def _circle(count: int = 30) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _star() -> np.ndarray:
    angle = -np.pi / 2 + np.arange(10) * np.pi / 5
    reach = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1)


def _umbrella() -> np.ndarray:
    angle = np.linspace(np.pi, 2 * np.pi, 18)
    dome = np.stack([np.cos(angle), 0.1 + 1.0 * np.sin(angle)], axis=1)
    under = [(0.66, -0.06), (0.33, 0.1), (0.08, 0.0), (0.08, 0.78), (0.16, 0.86), (0.26, 0.78), (0.26, 0.66),
             (0.42, 0.66), (0.42, 0.84), (0.2, 1.02), (0.0, 0.98), (-0.09, 0.84), (-0.09, 0.0), (-0.33, 0.1),
             (-0.66, -0.06)]  # fmt: skip
    return np.concatenate([dome, np.array(under)])


def _cup() -> np.ndarray:
    return np.array([(-0.8, -0.8), (0.45, -0.8), (0.45, -0.5), (0.85, -0.5), (1.0, -0.3), (0.95, 0.2), (0.7, 0.45),
                     (0.38, 0.45), (0.3, 0.75), (0.15, 0.85), (-0.5, 0.85), (-0.68, 0.75)])  # fmt: skip


def _fish() -> np.ndarray:
    angle = np.linspace(0.35, 2 * np.pi - 0.35, 24)
    body = np.stack([-0.22 + 0.78 * np.cos(angle), 0.58 * np.sin(angle)], axis=1)
    return np.concatenate([body, [(1.0, -0.6), (0.82, 0.0), (1.0, 0.6)]])


def _key() -> np.ndarray:
    angle = np.linspace(0.3, 2 * np.pi - 0.3, 22)
    head = np.stack([-0.55 + 0.45 * np.cos(angle), 0.45 * np.sin(angle)], axis=1)
    shaft = [
        (1.0, -0.14),
        (1.0, 0.42),
        (0.82, 0.42),
        (0.82, 0.14),
        (0.66, 0.14),
        (0.66, 0.5),
        (0.46, 0.5),
        (0.46, 0.14),
    ]
    return np.concatenate([head, shaft])


def _candle() -> np.ndarray:
    flame = [(-0.08, -0.3), (-0.2, -0.52), (-0.14, -0.75), (0.0, -1.0), (0.14, -0.75), (0.2, -0.52), (0.08, -0.3)]
    return np.array([(-0.34, 1.0), (-0.34, -0.3), *flame, (0.34, -0.3), (0.34, 1.0)])


def _apple() -> np.ndarray:
    angle = np.linspace(-np.pi / 2 + 0.2, 1.5 * np.pi - 0.2, 26)
    body = np.stack([0.88 * np.cos(angle), 0.2 + 0.8 * np.sin(angle)], axis=1)
    stem = [(-0.06, -0.5), (-0.02, -0.82), (0.14, -0.98), (0.24, -0.9), (0.12, -0.74), (0.08, -0.5)]
    return np.concatenate([body, stem])


def _bell() -> np.ndarray:
    side = [(0.22, -0.82), (0.5, -0.5), (0.6, 0.1), (0.95, 0.55), (0.95, 0.72), (0.24, 0.72), (0.2, 0.94)]
    return np.array([(-0.1, -1.0), (0.1, -1.0), *side, *[(-x, y) for x, y in side[::-1]]])


def _bottle() -> np.ndarray:
    side = [(0.16, -1.0), (0.16, -0.5), (0.42, -0.2), (0.42, 1.0)]
    return np.array([*side, *[(-x, y) for x, y in side[::-1]]])


def _boat() -> np.ndarray:
    sail = [(-0.04, 0.35), (-0.04, -1.0), (0.06, -1.0), (0.75, 0.2), (0.06, 0.2), (0.06, 0.35)]
    return np.array([(-1.0, 0.35), *sail, (1.0, 0.35), (0.62, 0.85), (-0.62, 0.85)])


def _hat() -> np.ndarray:
    angle = np.linspace(np.pi, 2 * np.pi, 14)
    crown = np.stack([0.52 * np.cos(angle), -0.05 + 0.55 * np.sin(angle)], axis=1)
    left, right = [(-1.0, 0.42), (-0.95, 0.28), (-0.56, 0.24)], [(0.56, 0.24), (0.95, 0.28), (1.0, 0.42)]
    return np.concatenate([left, crown, right])


def _hammer() -> np.ndarray:
    head = [(-0.7, -0.45), (-0.7, -0.95), (0.35, -0.95), (0.85, -0.6), (0.4, -0.45)]
    return np.array([(-0.13, 1.0), (-0.13, -0.45), *head, (0.13, -0.45), (0.13, 1.0)])


def _mushroom() -> np.ndarray:
    angle = np.linspace(np.pi, 2 * np.pi, 18)
    cap = np.stack([0.95 * np.cos(angle), 0.05 + 0.9 * np.sin(angle)], axis=1)
    return np.concatenate([cap, [(0.32, 0.12), (0.26, 0.6), (0.36, 0.95), (-0.36, 0.95), (-0.26, 0.6), (-0.32, 0.12)]])


BOOK = np.array([(-0.75, -0.95), (0.62, -0.95), (0.75, -0.82), (0.75, 0.95), (-0.62, 0.95), (-0.75, 0.82)])
TENT = np.array([(0.0, -0.8), (0.1, -0.8), (1.0, 0.75), (-1.0, 0.75)])


@dataclass(frozen=True)
class Detail:
    """A mark inside the silhouette, in unit coordinates: of a colour of its own, or a shade of the object's."""

    points: tuple[tuple[float, float], ...]
    shade: float = 1.0
    filled: bool = True
    colour: Colour | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of object: its outline in unit coordinates, its details."""

    outline: Callable[[], np.ndarray]
    details: tuple[Detail, ...] = ()


def _ring(x: float, y: float, radius: float) -> tuple[tuple[float, float], ...]:
    return tuple((x + radius * px, y + radius * py) for px, py in _circle(14))


KINDS: dict[str, Kind] = {
    "ball": Kind(_circle, (Detail(((-1.1, -0.36), (1.1, -0.36), (1.1, 0.36), (-1.1, 0.36)), colour=(248, 248, 248)),)),
    "umbrella": Kind(
        _umbrella,
        (
            Detail(((0.0, -0.95), (-0.4, -0.3), (-0.36, 0.12), (0.36, 0.12), (0.4, -0.3)), colour=(60, 215, 225)),
            Detail(((0.0, 0.05), (0.0, 0.9)), shade=0.55, filled=False),
        ),
    ),
    "cup": Kind(_cup, (Detail(((-0.82, -0.5), (0.5, -0.5), (0.5, 0.1), (-0.82, 0.1)), colour=(160, 100, 50)),)),
    "tent": Kind(lambda: TENT, (Detail(((0.05, -0.5), (0.5, 0.8), (-0.42, 0.8)), colour=(250, 70, 165)),)),
    "fish": Kind(
        _fish,
        (
            Detail(((-1.1, 0.08), (1.1, 0.08), (1.1, 0.8), (-1.1, 0.8)), colour=(255, 190, 150)),
            Detail(_ring(-0.68, -0.16, 0.1), colour=(15, 15, 20)),
        ),
    ),
    "star": Kind(_star, (Detail(_ring(0.0, 0.05, 0.2), shade=0.7),)),
    "key": Kind(
        _key,
        (
            Detail(((0.0, -0.3), (1.1, -0.3), (1.1, 0.6), (0.0, 0.6)), colour=(165, 170, 175)),
            Detail(_ring(-0.58, 0.0, 0.17), shade=0.4),
        ),
    ),
    "candle": Kind(
        _candle,
        (
            Detail(((-0.5, -0.28), (-0.5, -1.1), (0.5, -1.1), (0.5, -0.28)), colour=(255, 140, 25)),
            Detail(((-0.4, -0.3), (0.4, -0.3), (0.4, 0.1), (0.2, 0.3), (0.05, 0.05), (-0.15, 0.25), (-0.4, 0.0)),
                   colour=(255, 175, 70)),
        ),
    ),
    "apple": Kind(
        _apple,
        (
            Detail(((-0.07, -0.45), (-0.02, -0.84), (0.14, -1.0), (0.26, -0.9), (0.1, -0.45)), colour=(110, 70, 30)),
            Detail(((0.1, -0.42), (0.28, -0.62), (0.62, -0.6), (0.5, -0.4)), colour=(60, 200, 60)),
        ),
    ),
    "bell": Kind(
        _bell,
        (
            Detail(((-1.1, 0.52), (1.1, 0.52), (1.1, 0.75), (-1.1, 0.75)), colour=(215, 165, 60)),
            Detail(((-0.26, 0.72), (0.26, 0.72), (0.22, 1.0), (-0.22, 1.0)), shade=0.5),
        ),
    ),
    "bottle": Kind(
        _bottle,
        (
            Detail(((-0.2, -1.1), (0.2, -1.1), (0.2, -0.78), (-0.2, -0.78)), colour=(200, 170, 120)),
            Detail(((-0.44, 0.1), (0.44, 0.1), (0.44, 0.62), (-0.44, 0.62)), colour=(140, 205, 250)),
        ),
    ),
    "boat": Kind(
        _boat,
        (
            Detail(((0.0, -0.95), (0.75, 0.2), (0.0, 0.2)), colour=(250, 240, 205)),
            Detail(((-0.04, 0.35), (-0.04, -1.0), (0.06, -1.0), (0.06, 0.35)), colour=(120, 80, 45)),
        ),
    ),
    "book": Kind(
        lambda: BOOK,
        (
            Detail(((0.6, -0.82), (0.75, -0.82), (0.75, 0.95), (-0.62, 0.95), (-0.68, 0.85), (0.6, 0.82)),
                   colour=(250, 248, 235)),
            Detail(((-0.45, -0.6), (0.3, -0.6), (0.3, -0.25), (-0.45, -0.25)), colour=(245, 200, 90)),
        ),
    ),
    "hat": Kind(_hat, (Detail(((-0.56, 0.0), (0.56, 0.0), (0.58, 0.24), (-0.58, 0.24)), colour=(95, 60, 35)),)),
    "hammer": Kind(
        _hammer, (Detail(((-0.8, -1.0), (0.4, -1.0), (0.95, -0.6), (0.4, -0.4), (-0.8, -0.4)), colour=(150, 155, 165)),)
    ),
    "mushroom": Kind(
        _mushroom,
        (
            Detail(((-0.4, 0.1), (0.4, 0.1), (0.4, 1.0), (-0.4, 1.0)), colour=(245, 228, 200)),
            Detail(((-1.1, -0.08), (1.1, -0.08), (1.1, 0.1), (-1.1, 0.1)), colour=(200, 170, 130)),
        ),
    ),
}  # fmt: skip
"""Every kind by name. Each has a colour of its own somewhere, as things have: a flame, a ball's stripe."""


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """An object in a scene.

    Attributes:
        kind: by name; `colour` and `texture` alike.
        centre: (x, y) in pixels.
        radius: half size in pixels.
        polygon: (n, 2) int32 outline of what is seen of it; other objects may hide a part.
        area: pixels that are seen.
    """

    kind: str
    colour: str
    texture: str
    centre: tuple[float, float]
    radius: float
    polygon: np.ndarray
    area: int


def silhouette(kind: str, centre: tuple[float, float], radius: float, tilt: float, mirrored: bool) -> np.ndarray:
    """The outline (n, 2) int32 of a kind at a place; `tilt` in radians."""
    return _place(KINDS[kind].outline(), centre, radius, tilt, mirrored)


def _place(points: np.ndarray, centre: tuple[float, float], radius: float, tilt: float, mirrored: bool) -> np.ndarray:
    unit = points * np.array([-1.0 if mirrored else 1.0, 1.0])
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    return np.round(unit @ turn.T * radius + np.array(centre)).astype(np.int32)


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How an object stands: its whole outline (n, 2) int32, tilt in radians, whether it is mirrored, (3,) tint."""

    outline: np.ndarray
    tilt: float
    mirrored: bool
    tint: np.ndarray


def draw_object(image: np.ndarray, item: SceneObject, pose: Pose) -> None:
    """Draw an object into an (H, W, 3) uint8 RGB image, exactly on the pixels of its whole outline."""
    height, width = image.shape[:2]
    x0, y0 = np.maximum(pose.outline.min(axis=0) - 1, 0)
    x1, y1 = np.minimum(pose.outline.max(axis=0) + 2, (width, height))
    mask = fill_polygon(pose.outline - (x0, y0), y1 - y0, x1 - x0)
    y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    right, down = (x - item.centre[0]) / item.radius, (y - item.centre[1]) / item.radius
    bright = np.clip(1.12 - 0.2 * (right + down), 0.62, 1.3)
    colour = np.clip(np.array(COLOURS[item.colour], dtype=np.float32) + pose.tint, 0, 255)
    patch = np.clip(colour * bright[..., None], 0, 255)
    patch[_marks(item.texture, right, down, pose.tilt)] = _contrast(colour)
    for detail in KINDS[item.kind].details:
        points = _place(np.array(detail.points), item.centre, item.radius, pose.tilt, pose.mirrored) - (x0, y0)
        mark = np.zeros(mask.shape, dtype=np.uint8)
        if detail.filled:
            cv2.fillPoly(mark, [points], 1)
        else:
            cv2.polylines(mark, [points], False, 1, max(1, round(item.radius / 14)))
        inked = mark > 0
        if detail.colour is None:
            patch[inked] *= detail.shade
        else:
            patch[inked] = np.clip(np.array(detail.colour) * bright[inked, None], 0, 255)
    edge = mask & ~cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(bool)
    patch[edge] *= 0.72
    image[y0:y1, x0:x1][mask] = patch[mask].astype(np.uint8)


def detail_masks(item: SceneObject, pose: Pose, mask: np.ndarray) -> list[np.ndarray]:
    """(H, W) boolean of what is seen of each filled detail of an object, whose own mask is (H, W)."""
    found = []
    for detail in KINDS[item.kind].details:
        if detail.filled:
            points = _place(np.array(detail.points), item.centre, item.radius, pose.tilt, pose.mirrored)
            drawn = np.zeros(mask.shape, np.uint8)
            cv2.fillPoly(drawn, [points], 1)
            found.append((drawn > 0) & mask)
    return found


def _marks(texture: str, right: np.ndarray, down: np.ndarray, tilt: float) -> np.ndarray:
    """Where the stripes or dots of a texture are, in unit coordinates (H, W) of an object."""
    along = right * np.cos(tilt) + down * np.sin(tilt)
    across = down * np.cos(tilt) - right * np.sin(tilt)
    if texture == "striped":
        return np.asarray((along + 4.0) % 0.5 < 0.2)
    if texture == "dotted":
        return np.asarray(np.hypot((along + 4.0) % 0.48 - 0.24, (across + 4.0) % 0.48 - 0.24) < 0.14)
    return np.zeros(right.shape, dtype=bool)


def _contrast(colour: np.ndarray) -> np.ndarray:
    """The colour of marks on a colour: darker on a light one, lighter on a dark one."""
    return colour * 0.45 if colour.mean() > 110 else colour * 0.35 + 150
