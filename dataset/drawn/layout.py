"""Layout of the drawn scenes: size, background, clutter, and where the objects stand."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dataset.drawn.objects import COLOURS, KINDS, SceneObject, draw_object, silhouette
from dataset.masks import fill_polygon

SIZES: tuple[tuple[int, int], ...] = ((144, 192), (192, 144), (168, 168), (128, 192), (160, 192), (192, 160))
"""(height, width) of scenes."""

BACKGROUNDS: tuple[tuple[tuple[int, int, int], tuple[int, int, int]], ...] = (
    ((205, 222, 235), (186, 196, 170)),
    ((226, 220, 208), (178, 166, 150)),
    ((216, 224, 220), (160, 178, 182)),
    ((232, 226, 232), (196, 186, 196)),
    ((200, 206, 216), (206, 200, 186)),
)
"""Pairs of muted colours, wall or sky above and floor or meadow below."""

SMALLEST, LARGEST = 0.1, 0.2
"""Half size of an object as a share of the shorter side."""


@dataclass(frozen=True)
class Scene:
    """A drawn scene: RGB image, its objects, the number of its background, and the first row of what lies below."""

    image: np.ndarray
    objects: tuple[SceneObject, ...]
    background: int
    horizon: int


def _background(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, int, int]:
    """Image, number of the pair of colours, and first row of the lower one."""
    number = int(rng.integers(len(BACKGROUNDS)))
    above, below = BACKGROUNDS[number]
    horizon = int(height * rng.uniform(0.45, 0.75))
    rows = np.arange(height, dtype=np.float32)[:, None]
    top = np.array(above, np.float32) - 22 * (1 - rows / horizon)
    bottom = np.array(below, np.float32) + 20 * (rows - horizon) / (height - horizon)
    column = np.where(rows < horizon, top, bottom)[:, None, :]
    image = np.repeat(column, width, axis=1) + rng.normal(0, 2.5, (height, width, 1))
    return np.clip(image, 0, 255).astype(np.uint8), number, horizon


def _clutter(rng: np.random.Generator, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    for _ in range(rng.integers(8, 18)):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        base = image[y, x].astype(int)
        ink = tuple(int(value) for value in np.clip(base + rng.integers(-34, 20), 0, 255))
        if rng.random() < 0.5:
            cv2.ellipse(
                image, (x, y), (int(rng.integers(1, 4)), int(rng.integers(1, 3))), 0, 0, 360, ink, -1, cv2.LINE_AA
            )
        else:
            end = (x + int(rng.integers(-8, 9)), y + int(rng.integers(-8, 3)))
            cv2.line(image, (x, y), end, ink, 1, cv2.LINE_AA)


def _attributes(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Kinds and colours: all differing, or some of one kind or of one colour, never two alike."""
    kinds = list(rng.permutation(list(KINDS)))[:count]
    colours = list(rng.permutation(list(COLOURS)))[:count]
    shared = int(rng.integers(2, min(count, 4) + 1)) if count > 2 else 0
    choice = rng.random()
    if choice < 0.3:
        kinds[:shared] = [kinds[0]] * shared
    elif choice < 0.6:
        colours[:shared] = [colours[0]] * shared
    return [(str(kind), str(colour)) for kind, colour in zip(kinds, colours, strict=True)]


def _place_all(rng: np.random.Generator, height: int, width: int, count: int) -> list[tuple[float, float, float]]:
    """Centres and half sizes of `count` objects that keep a gap, the sizes well spread."""
    shorter = min(height, width)
    while True:
        placed: list[tuple[float, float, float]] = []
        scale = rng.uniform(0.85, 1.0) if count > 4 else 1.0
        for radius in sorted(rng.uniform(SMALLEST, LARGEST, count) * shorter * scale, reverse=True):
            for _ in range(40):
                x = rng.uniform(radius + 2, width - radius - 3)
                y = rng.uniform(radius + 2, height - radius - 3)
                if all(np.hypot(x - a, y - b) > (radius + c) * 1.06 + 3 for a, b, c in placed):
                    placed.append((x, y, radius))
                    break
        if len(placed) == count:
            return placed


def _shadow(image: np.ndarray, item: SceneObject) -> None:
    """Darken a soft ellipse below the object; the object is drawn over it."""
    x = item.centre[0]
    base = int(item.polygon[:, 1].max())
    layer = np.zeros(image.shape[:2], dtype=np.uint8)
    cv2.ellipse(
        layer,
        (round(x), base),
        (max(2, round(item.radius * 0.85)), max(1, round(item.radius * 0.16))),
        0,
        0,
        360,
        90,
        -1,
    )
    soft = cv2.GaussianBlur(layer, (0, 0), max(1.0, item.radius * 0.08))
    rows = slice(max(0, base - round(item.radius)), min(image.shape[0], base + round(item.radius)))
    image[rows] = (image[rows] * (1 - soft[rows, :, None] / 255.0)).astype(np.uint8)


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene of three to six objects; everything comes from `rng`."""
    height, width = SIZES[rng.integers(len(SIZES))]
    image, background, horizon = _background(rng, height, width)
    _clutter(rng, image)
    count = int(rng.integers(3, 7))
    places = _place_all(rng, height, width, count)
    attributes = _attributes(rng, count)
    poses = [(float(rng.normal(0, 0.12)), bool(rng.random() < 0.5)) for _ in range(count)]
    objects = []
    for place in rng.permutation(count):
        (x, y, radius), (kind, colour), (tilt, mirrored) = places[place], attributes[place], poses[place]
        polygon = silhouette(kind, (x, y), radius, tilt, mirrored)
        polygon = polygon.clip((0, 0), (width - 1, height - 1))
        area = int(fill_polygon(polygon, height, width).sum())
        item = SceneObject(kind=kind, colour=colour, centre=(x, y), radius=radius, polygon=polygon, area=area)
        _shadow(image, item)
        objects.append((item, tilt, mirrored))
    for item, tilt, mirrored in objects:
        draw_object(image, item, tilt=tilt, mirrored=mirrored, tint=rng.uniform(-14, 14, 3))
    return Scene(image, tuple(item for item, _, _ in objects), background, horizon)
