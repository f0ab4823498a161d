"""Label maps of drawn pictures as ADE20K, COCO-Stuff and Mapillary Vistas keep them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.drawn.coco import write_compact
from tests.drawn.pictures import COCO, Picture, Pools, save
from utils.progress import Bar

OUTDOORS = 0
"""The background of a sky above a meadow; the others are walls above floors."""


@dataclass(frozen=True)
class Values:
    """Pixel values of a dataset: of kinds, with `void` for those that its list of classes lacks, and of backgrounds."""

    void: int
    kinds: Mapping[str, int]
    sky: int
    meadow: int
    wall: int
    floor: int


ADE20K = Values(
    void=0,
    # Published classes: ball, canopy, glass, tent, animal, plaything, light. There is none for a key.
    kinds={"ball": 120, "umbrella": 107, "cup": 148, "tent": 115, "fish": 127, "star": 109, "candle": 83},
    sky=3,
    meadow=10,  # grass
    wall=1,
    floor=4,
)
COCO_STUFF = Values(
    void=255,
    # Published classes: sports ball, umbrella, cup, tent, metal, light. There is none for a fish or a star.
    kinds={"ball": 36, "umbrella": 27, "cup": 46, "tent": 165, "key": 131, "candle": 129},
    sky=156,
    meadow=123,  # grass
    wall=171,  # wall-concrete, a material, which is not asked for
    floor=100,  # carpet
)

MAPILLARY_LABELS: tuple[tuple[str, str, tuple[int, int, int]], ...] = (
    ("object--ball", "Ball", (220, 20, 60)),
    ("object--umbrella", "Umbrella", (0, 170, 30)),
    ("object--cup", "Cup", (250, 170, 29)),
    ("object--camping_tent", "Camping_Tent", (119, 11, 32)),
    ("animal--fish", "Fish", (0, 192, 0)),
    ("object--star", "Star", (255, 255, 128)),
    ("object--candle", "Candle", (150, 120, 90)),
    ("nature--sky", "Sky", (70, 130, 180)),
    ("nature--meadow", "Meadow", (107, 142, 35)),
    ("construction--wall", "Wall", (102, 102, 156)),
    ("construction--floor", "Floor", (128, 64, 128)),
    ("void--unlabeled", "Unlabeled", (0, 0, 0)),
)
"""Name, readable name and colour of each value. Mapillary's own list comes with the data, so here it is another one."""

MAPILLARY = Values(
    void=11,
    kinds={"ball": 0, "umbrella": 1, "cup": 2, "tent": 3, "fish": 4, "star": 5, "candle": 6},
    sky=7,
    meadow=8,
    wall=9,
    floor=10,
)


def label_map(picture: Picture, values: Values) -> np.ndarray:
    """(H, W) uint8 pixel values of a picture."""
    outdoors = picture.background == OUTDOORS
    above, below = (values.sky, values.meadow) if outdoors else (values.wall, values.floor)
    label = np.full(picture.size, below, dtype=np.uint8)
    label[: picture.horizon] = above
    for item, mask in zip(picture.objects, picture.masks(), strict=True):
        label[mask] = values.kinds.get(item.kind, values.void)
    return label


def write_label_maps(pools: Pools) -> None:
    """Write the three datasets."""
    ade20k, mapillary = pools.root / "ade20k", pools.root / "mapillary"
    _write(
        pools.train("ade20k"), ade20k / "images/training", ade20k / "annotations/training", "ADE_train_{:08d}", ADE20K
    )
    stuff = pools.root / "cocostuff/train2017"
    _write(pools.train("coco"), pools.root / "coco/train2017", stuff, COCO.removesuffix(".jpg"), COCO_STUFF)
    labels = [
        {"name": name, "readable": readable, "color": colour, "instances": name.startswith("object"), "evaluate": True}
        for name, readable, colour in MAPILLARY_LABELS
    ]
    write_compact(mapillary / "config_v2.0.json", {"labels": labels, "mapping": "drawn", "version": "2.0"})
    training = mapillary / "training"
    palette = [channel for _, _, colour in MAPILLARY_LABELS for channel in colour]
    _write(pools.train("mapillary"), training / "images", training / "v2.0/labels", "drawn_{:06d}", MAPILLARY, palette)


def _write(
    pictures: tuple[Picture, ...],
    images: Path,
    labels: Path,
    stem: str,
    values: Values,
    palette: list[int] | None = None,
) -> None:
    """Write photographs, and label maps of the same stem; a palette's label maps hold indices into it."""
    save(pictures, images, f"{stem}.jpg")
    labels.mkdir(parents=True, exist_ok=True)
    for picture in Bar(pictures, desc="label maps", unit="map"):
        label = Image.fromarray(label_map(picture, values))
        if palette is not None:
            label.putpalette(palette)
        label.save(labels / f"{stem.format(picture.id)}.png")
