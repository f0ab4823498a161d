"""Writer of drawn datasets: the tree of every family but `reason_seg`, reproducible from a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset.drawn.manifest import begin, finish
from tests.drawn.false_premise import (
    write_correct_refer_seg,
    write_fp_reason_seg,
    write_fp_refer_seg,
    write_neg_refer_seg,
)
from tests.drawn.lisa_plus import write_reason_seg_plus
from tests.drawn.muse import write_multi_reason_seg
from tests.drawn.parts import write_parts
from tests.drawn.pictures import Pools
from tests.drawn.refer_seg import write_refer_seg
from tests.drawn.sem_seg import write_label_maps
from tests.drawn.vqa import write_vqa
from utils.errors import DataError

MANIFEST = "drawn_layouts.json"
VERSION = 1


@dataclass(frozen=True)
class Family:
    """What writes a family, and the folders below the root that it writes to."""

    writers: tuple[Callable[[Pools], None], ...]
    folders: tuple[str, ...]


FAMILIES: dict[str, Family] = {
    "sem_seg": Family((write_label_maps, write_parts), ("ade20k", "coco", "cocostuff", "mapillary", "vlpart")),
    "refer_seg": Family((write_refer_seg,), ("refer_seg",)),
    "neg_refer_seg": Family((write_neg_refer_seg,), ("refer_seg",)),
    "correct_refer_seg": Family((write_correct_refer_seg,), ("refer_seg",)),
    "fp_refer_seg": Family((write_fp_refer_seg,), ("refer_seg",)),
    "fp_reason_seg": Family((write_fp_reason_seg,), ("reason_seg/fpReasonSeg",)),
    "vqa": Family((write_vqa,), ("coco", "llava_dataset")),
    "reason_seg_plus": Family((write_reason_seg_plus,), ("refer_seg", "reason_seg_plus")),
    "multi_reason_seg": Family((write_multi_reason_seg,), ("refer_seg", "multi_reason_seg")),
}
"""The families that `write_layouts` writes."""


def write_layouts(root: str | Path, *, families: Sequence[str], images: int, seed: int) -> None:
    """Write drawn datasets in the layouts that the families are read from.

    Photographs that several datasets share are the same scenes; splits never share one. Each split that is scored has
    an eighth as many as there are to train on, and at least three. What is there already is not written again.

    Args:
        root: the folder that holds all datasets.
        families: keys of `FAMILIES`.
        images: to train on, in each dataset; at least 1.
        seed: of everything.

    Raises:
        DataError: for an unknown family, a number below 1, or folders that hold something else; nothing is overwritten.
    """
    root = Path(root)
    unknown = [family for family in families if family not in FAMILIES]
    if unknown or not families:
        raise DataError(root, f"it cannot hold the families {unknown}; name one or more of {', '.join(FAMILIES)}")
    if images < 1:
        raise DataError(root, f"{images} images were asked for; ask for at least 1")
    chosen = [family for family in FAMILIES if family in families]
    manifest = {"version": VERSION, "seed": seed, "images": images, "families": chosen}
    folders = dict.fromkeys(folder for family in chosen for folder in FAMILIES[family].folders)
    if not begin(root / MANIFEST, manifest, [root / folder for folder in folders]):
        return
    pools = Pools(root, images=images, seed=seed)
    for family in chosen:
        for write in FAMILIES[family].writers:
            write(pools)
    finish(root / MANIFEST, manifest)
