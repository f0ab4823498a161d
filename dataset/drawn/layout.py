"""Layout of the drawn scenes: size, background, clutter, and where the objects stand."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dataset.drawn.objects import COLOURS, KINDS, SOLID, TEXTURES, Pose, SceneObject, draw_object, silhouette
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

SMALLEST, LARGEST = 0.09, 0.21
"""Half size of an object as a share of the shorter side."""

FEWEST, MOST = 2, 8
"""Objects of a scene."""

SEEN = 0.6
"""Least share of an object that is not hidden behind others."""


@dataclass(frozen=True)
class Scene:
    """A drawn scene.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        objects: what stands in it.
        poses: how each object stands.
        background: number of the pair of colours behind.
        horizon: first row of what lies below.
    """

    image: np.ndarray
    objects: tuple[SceneObject, ...]
    poses: tuple[Pose, ...]
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


def _attributes(rng: np.random.Generator, count: int) -> list[tuple[str, str, str]]:
    """Kind, colour and texture of each object; no two share kind and colour, some share one of the three."""
    kinds = [str(kind) for kind in rng.permutation(list(KINDS))[:count]]
    colours = [str(colour) for colour in rng.permutation(list(COLOURS))[:count]]
    textures = [str(texture) for texture in rng.choice(TEXTURES, count, p=(0.5, 0.25, 0.25))]
    shared = int(rng.integers(2, min(count, 4) + 1)) if count > 2 else 0
    choice = rng.random()
    if choice < 0.35:
        kinds[:shared] = [kinds[0]] * shared
    elif choice < 0.7:
        colours[:shared] = [colours[0]] * shared
    textures = ["plain" if kind in SOLID else texture for kind, texture in zip(kinds, textures, strict=True)]
    return list(zip(kinds, colours, textures, strict=True))


def _place_all(rng: np.random.Generator, height: int, width: int, count: int) -> list[tuple[float, float, float]]:
    """Centres and half sizes of `count` objects, the sizes well spread; in some scenes they may overlap."""
    shorter = min(height, width)
    nearness, gap = (0.62, 0.0) if rng.random() < 0.35 else (1.06, 3.0)
    while True:
        placed: list[tuple[float, float, float]] = []
        scale = rng.uniform(0.85, 1.0) * min(1.0, (5.5 / count) ** 0.5)
        for radius in sorted(rng.uniform(SMALLEST, LARGEST, count) * shorter * scale, reverse=True):
            for _ in range(40):
                x = rng.uniform(radius + 2, width - radius - 3)
                y = rng.uniform(radius + 2, height - radius - 3)
                if all(np.hypot(x - a, y - b) > (radius + c) * nearness + gap for a, b, c in placed):
                    placed.append((x, y, radius))
                    break
        if len(placed) == count:
            return placed


def _seen(outlines: list[np.ndarray], height: int, width: int) -> list[tuple[np.ndarray, int]] | None:
    """Outline and area of what is seen of each object, each drawn over those before it.

    None if too little is seen of one, or it is seen in pieces, which no single polygon outlines.
    """
    whole = [fill_polygon(outline, height, width) for outline in outlines]
    hidden = np.zeros((height, width), dtype=bool)
    seen = []
    for outline, mask in zip(outlines[::-1], whole[::-1], strict=True):
        if (mask & hidden).any():
            visible = mask & ~hidden
            contours, _ = cv2.findContours(visible.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            outline = contours[0][:, 0] if len(contours) == 1 else outline
            if visible.sum() < SEEN * mask.sum() or not np.array_equal(fill_polygon(outline, height, width), visible):
                return None
            seen.append((outline, int(visible.sum())))
        else:
            seen.append((outline, int(mask.sum())))
        hidden |= mask
    return seen[::-1]


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
    """Draw a scene of two to eight objects; everything comes from `rng`."""
    height, width = SIZES[rng.integers(len(SIZES))]
    image, background, horizon = _background(rng, height, width)
    _clutter(rng, image)
    count = int(rng.integers(FEWEST, MOST + 1))
    while True:
        # Those whose middle is lower stand in front.
        places = sorted(_place_all(rng, height, width, count), key=lambda place: place[1])
        attributes = _attributes(rng, count)
        rng.shuffle(attributes)
        tilts = rng.normal(0, 0.15, count)
        mirrored = rng.random(count) < 0.5
        outlines = [
            silhouette(kind, (x, y), radius, tilt, flip).clip((0, 0), (width - 1, height - 1))
            for (x, y, radius), (kind, _, _), tilt, flip in zip(places, attributes, tilts, mirrored, strict=True)
        ]
        seen = _seen(outlines, height, width)
        if seen is not None:
            break
    drawn = []
    for number, ((x, y, radius), (kind, colour, texture)) in enumerate(zip(places, attributes, strict=True)):
        polygon, area = seen[number]
        item = SceneObject(
            kind=kind, colour=colour, texture=texture, centre=(x, y), radius=radius, polygon=polygon, area=area
        )
        pose = Pose(
            outline=outlines[number],
            tilt=float(tilts[number]),
            mirrored=bool(mirrored[number]),
            tint=rng.uniform(-14, 14, 3),
        )
        _shadow(image, item)
        drawn.append((item, pose))
    for item, pose in drawn:
        draw_object(image, item, pose)
    order = rng.permutation(count)
    objects, poses = zip(*(drawn[index] for index in order), strict=True)
    return Scene(image, objects, poses, background, horizon)
