"""Parts of drawn objects in the layouts of PACO-LVIS and PASCAL-Part: COCO files with categories `object:part`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.drawn.coco import CATEGORIES, Form, annotation, box, instances, write_compact
from tests.drawn.pictures import COCO, Picture, Pools, save
from utils.progress import Bar

PARTS = ("upper_half", "lower_half")
"""Every silhouette has these two, cut at the middle row of its box."""

PER_OBJECT = 1 + len(PARTS)

PACO_NAMES = {"star": "star_(shape)", "key": "key_(metal)"}
"""Kinds that the vocabulary of PACO would tell apart from others of the same name."""


def halves(mask: np.ndarray) -> list[np.ndarray]:
    """(H, W) boolean of the parts of a silhouette."""
    _, top, _, height = box(mask)
    above = np.arange(mask.shape[0])[:, None] < top + height // 2
    return [mask & above, mask & ~above]


def write_parts(pools: Pools) -> None:
    """Write both datasets."""
    vlpart = pools.root / "vlpart"
    names = {kind: PACO_NAMES.get(kind, kind) for kind in CATEGORIES}
    pictures = pools.train("coco")
    save(pictures, pools.root / "coco/train2017", COCO)
    content = _content(pictures, f"train2017/{COCO}", names, "compressed")
    write_compact(vlpart / "paco/annotations/paco_lvis_v1_train.json", content)
    pictures = pools.train("voc")
    save(pictures, vlpart / "pascal_part/VOCdevkit/VOC2010/JPEGImages", "2010_{:06d}.jpg")
    content = _content(pictures, "2010_{:06d}.jpg", {kind: kind for kind in CATEGORIES}, "runs", whole=False)
    write_compact(vlpart / "pascal_part/train.json", content)


def _content(
    pictures: tuple[Picture, ...], name: str, names: dict[str, str], form: Form, *, whole: bool = True
) -> dict[str, Any]:
    """A file with the parts of every object, and the whole objects too; each third annotation is run lengths."""
    categories = {
        label: _category(kind, place)
        for kind, text in names.items()
        for place, label in enumerate((text, *(f"{text}:{part}" for part in PARTS)))
        if whole or place
    }
    annotations: list[dict[str, Any]] = []
    for picture in Bar(pictures, desc="parts", unit="scene"):
        for item, mask in zip(picture.objects, picture.masks(), strict=True):
            for place, region in enumerate((mask, *halves(mask))):
                if whole or place:
                    number = len(annotations) + 1
                    chosen: Form = form if number % 3 == 0 else "polygons"
                    annotations.append(annotation(number, picture, _category(item.kind, place), region, chosen))
    return instances(pictures, name, annotations, categories)


def _category(kind: str, place: int) -> int:
    """Category id of a kind as a whole (0) or of one of its parts (from 1)."""
    return CATEGORIES[kind] * PER_OBJECT + place
