"""Drawn pictures: pools of scenes with a split each, drawn once and saved wherever a dataset keeps its photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.drawn.layout import Scene, draw_scene
from dataset.drawn.objects import SceneObject
from dataset.drawn.writer import jpeg
from dataset.masks import fill_polygon
from utils.progress import Bar
from utils.seeding import generator_for

WORDINGS = {"train": "train", "val": "val", "testA": "test", "testB": "test"}
"""Four splits, and the three whose wordings they use."""

EVALUATED_SHARE, FEWEST_EVALUATED = 8, 3
"""A split that is scored has an eighth of the training pictures, and at least three."""

TRAIN2014, VAL2014, COCO = "COCO_train2014_{:012d}.jpg", "COCO_val2014_{:012d}.jpg", "{:012d}.jpg"
"""Names of COCO's photographs by id."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawn scene as a photograph: id from 1 within its pool, split, JPEG, (height, width), objects, background."""

    id: int
    split: str
    jpeg: bytes
    size: tuple[int, int]
    objects: tuple[SceneObject, ...]
    background: int
    horizon: int

    @property
    def wording(self) -> str:
        """`train`, `val` or `test`."""
        return WORDINGS[self.split]

    def masks(self) -> list[np.ndarray]:
        """(H, W) boolean of each object; no two overlap."""
        return [fill_polygon(item.polygon, *self.size) for item in self.objects]


class Pools:
    """Pools of pictures, each drawn when it is first asked for: a pure function of seed, name and number.

    Args:
        root: the folder that holds all datasets.
        images: pictures of the split train.
        seed: of everything.
    """

    def __init__(self, root: Path, *, images: int, seed: int) -> None:
        self.root, self._images, self._seed = root, images, seed
        self._pools: dict[tuple[str, bool], tuple[Picture, ...]] = {}

    def pictures(self, pool: str) -> tuple[Picture, ...]:
        """Pictures of all splits, `train` first."""
        return self.train(pool) + self._drawn(pool, evaluated=True)

    def train(self, pool: str) -> tuple[Picture, ...]:
        """Pictures of the split train."""
        return self._drawn(pool, evaluated=False)

    def generator(self, name: str, picture: Picture) -> np.random.Generator:
        """What a dataset draws about a picture, besides the picture itself."""
        return generator_for(self._seed, "dataset", name, picture.id)

    def _drawn(self, pool: str, *, evaluated: bool) -> tuple[Picture, ...]:
        key = pool, evaluated
        if key not in self._pools:
            self._pools[key] = tuple(
                self._draw(pool, split, number)
                for number, split in enumerate(Bar(self._splits(evaluated), desc=f"{pool} scenes", unit="scene"))
            )
        return self._pools[key]

    def _splits(self, evaluated: bool) -> list[str]:
        if not evaluated:
            return ["train"] * self._images
        count = max(FEWEST_EVALUATED, self._images // EVALUATED_SHARE)
        return [split for split in ("val", "testA", "testB") for _ in range(count)]

    def _draw(self, pool: str, split: str, number: int) -> Picture:
        scene = _draw_apart(generator_for(self._seed, pool, split == "train", number))
        height, width = scene.image.shape[:2]
        return Picture(
            id=1 + number + (0 if split == "train" else self._images),
            split=split,
            jpeg=jpeg(scene.image),
            size=(height, width),
            objects=scene.objects,
            background=scene.background,
            horizon=scene.horizon,
        )


def _draw_apart(rng: np.random.Generator) -> Scene:
    """A scene of three to six objects, of which no two share a pixel."""
    while True:
        scene = draw_scene(rng)
        masks = [fill_polygon(item.polygon, *scene.image.shape[:2]) for item in scene.objects]
        if 3 <= len(masks) <= 6 and np.sum(masks, axis=0).max() == 1:
            return scene


def save(pictures: Sequence[Picture], folder: Path, name: str) -> None:
    """Save pictures under a name that holds their id, such as `{:012d}.jpg`; it may hold folders."""
    for picture in pictures:
        path = folder / name.format(picture.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.jpeg)
