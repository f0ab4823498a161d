"""What each training dataset needs below the data folder, where that comes from, and how many records it then has.

The numbers are the publishers', or those of the paper's Table 9, which are rounded. Nothing depends on them: a part of
a dataset trains too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

_COCO = "COCO images: https://cocodataset.org"
_TRAIN2014 = "refer_seg/images/mscoco/images/train2014"
_TRAIN2017 = "coco/train2017 or refer_seg/images/mscoco/images/train2017"
_LISA = "https://github.com/dvlab-research/LISA, section Training Data Preparation"
_VLPART = "https://github.com/facebookresearch/VLPart, datasets/README.md"
_SESAME = f"https://github.com/see-say-segment/sesame, dataset/README.md; {_COCO}"
_HUB_LISA = f"hub: the four LISA_Plus_* datasets of Senqiao; each file is called data.json there: rename it. {_COCO}"


@dataclass(frozen=True)
class Expected:
    """What is known of a dataset.

    Attributes:
        needs: files and folders below the data folder; " or " joins places of which one is enough.
        source: where they come from.
        records: number of training records.
        rounding: by how much that number may be off.
    """

    needs: tuple[str, ...]
    source: str
    records: int
    rounding: int = 0

    def lacks(self, root: Path) -> list[str]:
        """Those of `needs` that are not below a folder."""
        return [need for need in self.needs if not any((root / place).exists() for place in need.split(" or "))]

    def is_usual(self, records: int) -> bool:
        """Whether a number of records is the expected one."""
        return abs(records - self.records) <= self.rounding


def _refer(
    name: str, references: str, source: str, records: int, rounding: int = 5, images: str = _TRAIN2014
) -> Expected:
    folder = f"refer_seg/{name}"
    references = " or ".join(f"{folder}/{file}" for file in references.split(" or "))
    return Expected((f"{folder}/instances.json", references, images), source, records, rounding)


def _lisa_plus(file: str, records: int) -> Expected:
    return Expected((f"reason_seg_plus/LISA_Plus_{file}.json", _TRAIN2017), _HUB_LISA, records, 5)


EXPECTED: Mapping[str, Expected] = MappingProxyType(
    {
        "sem_seg/ade20k": Expected(
            ("ade20k/images/training", "ade20k/annotations/training"),
            "ADEChallengeData2016: http://sceneparsing.csail.mit.edu",
            20_210,
        ),
        "sem_seg/cocostuff": Expected(
            ("cocostuff/train2017", _TRAIN2017),
            f"stuffthingmaps_trainval2017: https://github.com/nightrome/cocostuff; {_COCO}",
            118_287,
        ),
        "sem_seg/pascal_part": Expected(
            ("vlpart/pascal_part/train.json", "vlpart/pascal_part/VOCdevkit/VOC2010/JPEGImages"), _VLPART, 4_370, 5
        ),
        "sem_seg/paco_lvis": Expected(
            ("vlpart/paco/annotations/paco_lvis_v1_train.json", _TRAIN2017),
            f"https://github.com/facebookresearch/paco; {_COCO}",
            45_790,
            5,
        ),
        "sem_seg/mapillary": Expected(
            ("mapillary/config_v2.0.json", "mapillary/training/images", "mapillary/training/v2.0/labels"),
            "Mapillary Vistas 2.0: https://www.mapillary.com/dataset/vistas",
            18_000,
        ),
        "refer_seg/refclef": _refer("refclef", "refs(unc).p", _LISA, 17_980, images="refer_seg/images/saiapr_tc-12"),
        "refer_seg/refcoco": _refer("refcoco", "refs(unc).p", f"{_LISA}; {_COCO}", 16_994, 0),
        "refer_seg/refcoco+": _refer("refcoco+", "refs(unc).p", f"{_LISA}; {_COCO}", 16_990),
        "refer_seg/refcocog": _refer("refcocog", "refs(umd).p", f"{_LISA}; {_COCO}", 21_900),
        "refer_seg/refzom": _refer(
            "refzom",
            "Ref_ZOM.p",
            f"https://github.com/toggle1995/RIS-DMMI; {_COCO}",
            43_749,
            0,
            f"refer_seg/refzom/trainval2014 or refer_seg/refzom/train2014 or {_TRAIN2014}",
        ),
        "refer_seg/grefcoco": _refer(
            "grefcoco", "grefs(unc).p or grefs(unc).json", f"https://github.com/henghuiding/gRefCOCO; {_COCO}", 16_990
        ),
        "neg_refer_seg/R-refcoco": _refer("R-refcoco", "refs(unc_exclude_unified).p", _SESAME, 15_100),
        "neg_refer_seg/R-refcoco+": _refer("R-refcoco+", "refs(unc_exclude_unified).p", _SESAME, 15_100),
        "neg_refer_seg/R-refcocog": _refer("R-refcocog", "refs(umd_exclude_unified).p", _SESAME, 20_040),
        "correct_refer_seg/fprefcoco": _refer("fprefcoco", "refs(berkeley_exclude_unified).p", _SESAME, 16_990),
        "correct_refer_seg/fprefcoco+": _refer("fprefcoco+", "refs(berkeley_exclude_unified).p", _SESAME, 16_990),
        "correct_refer_seg/fprefcocog": _refer("fprefcocog", "refs(berkeley_exclude_unified).p", _SESAME, 21_900),
        **{
            f"fp_refer_seg/{name}": _refer(name, f"refs({split_by}_exclude_unified).p", _SESAME, records, images=images)
            for name, split_by, records, images in (
                ("refclef", "unc", 17_980, "refer_seg/images/saiapr_tc-12"),
                ("refcoco", "unc", 15_100, _TRAIN2014),
                ("refcoco+", "unc", 15_100, _TRAIN2014),
                ("refcocog", "umd", 20_040, _TRAIN2014),
            )
        },
        "vqa/llava_instruct_150k": Expected(
            ("llava_dataset/llava_instruct_150k.json", _TRAIN2017),
            f"hub: liuhaotian/LLaVA-Instruct-150K; {_COCO}",
            157_712,
        ),
        "reason_seg/ReasonSeg|train": Expected(
            ("reason_seg/ReasonSeg/train",),
            "https://github.com/dvlab-research/LISA, section Dataset",
            239,
        ),
        "fp_reason_seg/fpReasonSeg|train": Expected(
            ("reason_seg/fpReasonSeg/train or reason_seg/ReasonSeg/train",), _SESAME, 239
        ),
        "reason_seg_plus/instance_seg": _lisa_plus("Instance_Seg", 58_500),
        "reason_seg_plus/cot": _lisa_plus("COT", 3_040),
        "reason_seg_plus/conversations": _lisa_plus("Conversations", 2_650),
        "reason_seg_plus/caption": _lisa_plus("Caption", 1_340),
        "multi_reason_seg/MultiReasonSeg|train": Expected(
            ("multi_reason_seg/MultiReasonSeg/MUSE_train.json", f"{_TRAIN2014} or coco/train2017"),
            f"MUSE: https://github.com/MaverickRen/PixelLM; {_COCO}",
            102_350,
            5,
        ),
    }
)
"""By family and dataset, as a training source is named."""
