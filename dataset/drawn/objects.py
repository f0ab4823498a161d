"""Objects of the drawn scenes: one silhouette polygon each, its shading and details, and what it is good for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from dataset.masks import fill_polygon

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (214, 40, 40),
    "orange": (245, 135, 20),
    "yellow": (250, 215, 45),
    "green": (45, 160, 70),
    "blue": (35, 90, 215),
    "purple": (140, 60, 180),
    "pink": (250, 135, 190),
    "brown": (120, 72, 35),
}
"""Names and RGB of the eight colours."""


def _circle(count: int = 30) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _star() -> np.ndarray:
    angle = -np.pi / 2 + np.arange(10) * np.pi / 5
    reach = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x / 17, y / 17], axis=1)


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


def _leaf() -> np.ndarray:
    t = np.linspace(0, np.pi, 14)
    right = np.stack([0.62 * np.sin(t) ** 0.8, -np.cos(t) * 0.8 - 0.2], axis=1)
    left = right[::-1] * np.array([-1, 1])
    stem = np.array([(0.07, 0.6), (0.14, 1.0), (-0.02, 1.0), (-0.07, 0.6)])
    return np.concatenate([right, stem, left])


def _key() -> np.ndarray:
    angle = np.linspace(0.3, 2 * np.pi - 0.3, 22)
    head = np.stack([-0.55 + 0.45 * np.cos(angle), 0.45 * np.sin(angle)], axis=1)
    shaft = [(1.0, -0.14), (1.0, 0.42), (0.82, 0.42), (0.82, 0.14), (0.66, 0.14), (0.66, 0.5), (0.46, 0.5), (0.46, 0.14)]
    return np.concatenate([head, shaft])


def _candle() -> np.ndarray:
    flame = [(-0.08, -0.3), (-0.2, -0.52), (-0.14, -0.75), (0.0, -1.0), (0.14, -0.75), (0.2, -0.52), (0.08, -0.3)]
    return np.array([(-0.34, 1.0), (-0.34, -0.3), *flame, (0.34, -0.3), (0.34, 1.0)])


def _boat() -> np.ndarray:
    return np.array([(-1.0, 0.35), (-0.05, 0.35), (-0.05, 0.2), (-0.7, 0.2), (-0.02, -1.0), (0.06, -1.0), (0.72, 0.2),
                     (0.06, 0.2), (0.06, 0.35), (1.0, 0.35), (0.66, 0.85), (-0.66, 0.85)])  # fmt: skip


TENT = np.array([(0.0, -0.8), (0.1, -0.8), (1.0, 0.75), (-1.0, 0.75)])
BOX = np.array([(0.0, -0.95), (0.85, -0.55), (0.85, 0.45), (0.0, 0.95), (-0.85, 0.45), (-0.85, -0.55)])


@dataclass(frozen=True)
class Detail:
    """A mark inside the silhouette: polygon or open line in unit coordinates, as a share of the colour's brightness."""

    points: tuple[tuple[float, float], ...]
    shade: float
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
    "ball": Kind(
        _circle,
        (
            Detail(((-1.0, -0.2), (-0.4, -0.02), (0.4, -0.02), (1.0, -0.2)), 0.6, filled=False),
            Detail(((-1.0, 0.2), (-0.4, 0.38), (0.4, 0.38), (1.0, 0.2)), 0.6, filled=False),
        ),
    ),
    "umbrella": Kind(
        _umbrella,
        (
            Detail(((0.0, -0.9), (-0.3, -0.4), (-0.33, 0.1)), 0.65, filled=False),
            Detail(((0.0, -0.9), (0.3, -0.4), (0.33, 0.1)), 0.65, filled=False),
        ),
    ),
    "cup": Kind(_cup, (Detail(((-0.78, -0.8), (0.43, -0.8), (0.41, -0.58), (-0.75, -0.58)), 0.6), )),
    "tent": Kind(lambda: TENT, (Detail(((0.05, -0.5), (0.32, 0.75), (-0.22, 0.75)), 0.42),)),
    "fish": Kind(
        _fish,
        (
            Detail(_ring(-0.68, -0.12, 0.09), 1.0, colour=(20, 20, 25)),
            Detail(((-0.4, -0.45), (-0.3, 0.0), (-0.4, 0.45)), 0.6, filled=False),
        ),
    ),
    "star": Kind(_star),
    "box": Kind(
        lambda: BOX,
        (
            Detail(((0.0, -0.12), (0.85, -0.55), (0.85, 0.45), (0.0, 0.95)), 0.66),
            Detail(((-0.85, -0.55), (0.0, -0.12), (0.85, -0.55)), 0.5, filled=False),
            Detail(((0.0, -0.12), (0.0, 0.95)), 0.5, filled=False),
        ),
    ),
    "key": Kind(_key, (Detail(_ring(-0.58, 0.0, 0.17), 0.4),)),
    "candle": Kind(
        _candle,
        (Detail(((-0.08, -0.3), (-0.2, -0.52), (-0.14, -0.75), (0.0, -1.0), (0.14, -0.75), (0.2, -0.52), (0.08, -0.3)),
                1.0, colour=(255, 240, 150)),),  # fmt: skip
    ),
    "boat": Kind(
        _boat,
        (
            Detail(((-1.0, 0.35), (1.0, 0.35), (0.66, 0.85), (-0.66, 0.85)), 0.55),
            Detail(((0.02, -1.0), (0.02, 0.35)), 0.5, filled=False),
        ),
    ),
    "heart": Kind(_heart),
    "leaf": Kind(
        _leaf,
        (
            Detail(((0.0, -0.9), (0.0, 1.0)), 0.6, filled=False),
            Detail(((-0.4, -0.35), (0.0, -0.05), (0.4, -0.35)), 0.65, filled=False),
            Detail(((-0.38, 0.05), (0.0, 0.3), (0.38, 0.05)), 0.65, filled=False),
        ),
    ),
}
"""Every kind by name."""


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """An object in a scene: kind and colour by name, centre (x, y) and half size in pixels, polygon and its pixels."""

    kind: str
    colour: str
    centre: tuple[float, float]
    radius: float
    polygon: np.ndarray
    area: int


def silhouette(kind: str, centre: tuple[float, float], radius: float, tilt: float, mirrored: bool) -> np.ndarray:
    """The outline (n, 2) int32 of a kind at a place; `tilt` in radians."""
    return _place(KINDS[kind].outline(), centre, radius, tilt, mirrored)


def _place(
    points: np.ndarray, centre: tuple[float, float], radius: float, tilt: float, mirrored: bool
) -> np.ndarray:
    unit = points * np.array([-1.0 if mirrored else 1.0, 1.0])
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    return np.round(unit @ turn.T * radius + np.array(centre)).astype(np.int32)


def draw_object(
    image: np.ndarray, item: SceneObject, *, tilt: float, mirrored: bool, tint: np.ndarray
) -> None:
    """Draw an object into an (H, W, 3) uint8 RGB image, exactly on the pixels of its mask.

    Args:
        image: changed in place.
        item: what to draw.
        tilt: as its polygon was made.
        mirrored: as its polygon was made.
        tint: (3,) small change of the colour.
    """
    height, width = image.shape[:2]
    x0, y0 = np.maximum(item.polygon.min(axis=0) - 1, 0)
    x1, y1 = np.minimum(item.polygon.max(axis=0) + 2, (width, height))
    mask = fill_polygon(item.polygon - (x0, y0), y1 - y0, x1 - x0)
    colour = np.clip(np.array(COLOURS[item.colour], dtype=np.float32) + tint, 0, 255)
    y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    light = 1.12 - 0.2 * ((x - item.centre[0]) + (y - item.centre[1])) / item.radius
    patch = np.clip(colour * np.clip(light, 0.62, 1.3)[..., None], 0, 255)
    for detail in KINDS[item.kind].details:
        points = _place(np.array(detail.points), item.centre, item.radius, tilt, mirrored) - (x0, y0)
        mark = np.zeros(mask.shape, dtype=np.uint8)
        if detail.filled:
            cv2.fillPoly(mark, [points], 1)
        else:
            cv2.polylines(mark, [points], False, 1, max(1, round(item.radius / 14)))
        inked = mark > 0
        patch[inked] = detail.colour if detail.colour is not None else patch[inked] * detail.shade
    edge = mask & ~cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(bool)
    patch[edge] *= 0.72
    image[y0:y1, x0:x1][mask] = patch[mask].astype(np.uint8)
