"""Semantic segmentation: label maps, and instances of objects and parts, as one family."""

from __future__ import annotations

from dataset.families.label_maps import LabelMaps
from dataset.families.parts import Parts
from dataset.readers.folder import DataFolder
from dataset.source import COCO_IMAGES, TRAIN2017, Expected, Family, FamilyOptions, Source

_VLPART = "https://github.com/facebookresearch/VLPart, datasets/README.md"
_KINDS: dict[str, type[LabelMaps] | type[Parts]] = {
    "ade20k": LabelMaps,
    "cocostuff": LabelMaps,
    "pascal_part": Parts,
    "paco_lvis": Parts,
    "mapillary": LabelMaps,
}


def _source(name: str, data: DataFolder, options: FamilyOptions) -> Source:
    kind = _KINDS[FAMILY.known(name)]
    return kind(data, name, max_questions=options.max_questions, max_per_question=options.max_per_question)


FAMILY = Family(
    name="sem_seg",
    sets={
        "ade20k": Expected(
            ("ade20k/images/training", "ade20k/annotations/training"),
            "ADEChallengeData2016: http://sceneparsing.csail.mit.edu",
            20_210,
            terms="BSD-3; photographs: research and teaching",
        ),
        "cocostuff": Expected(
            ("cocostuff/train2017", TRAIN2017),
            f"stuffthingmaps_trainval2017: https://github.com/nightrome/cocostuff; {COCO_IMAGES}",
            118_287,
            terms="CC BY 4.0; photographs: Flickr's terms",
        ),
        "pascal_part": Expected(
            ("vlpart/pascal_part/train.json", "vlpart/pascal_part/VOCdevkit/VOC2010/JPEGImages"), _VLPART, 4_370, 5
        ),
        "paco_lvis": Expected(
            ("vlpart/paco/annotations/paco_lvis_v1_train.json", TRAIN2017),
            f"https://github.com/facebookresearch/paco; {COCO_IMAGES}",
            45_790,
            5,
        ),
        "mapillary": Expected(
            ("mapillary/config_v2.0.json", "mapillary/training/images", "mapillary/training/v2.0/labels"),
            "Mapillary Vistas 2.0: https://www.mapillary.com/dataset/vistas",
            18_000,
            terms="CC BY-NC-SA 4.0; see there",
        ),
    },
    chosen="ade20k||cocostuff||pascal_part||mapillary",
    about="datasets of sem_seg",
    source=_source,
)
