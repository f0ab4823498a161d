"""What is publicly known of the datasets: how many records there are to train on, and where users get them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Expected:
    """A dataset as published.

    Attributes:
        records: of its training split, as `len` of its source counts them.
        unit: what `records` is rounded to; 1 where it is exact.
        origin: where users get it.
    """

    records: int
    unit: int
    origin: str

    def differs(self, found: int) -> bool:
        """Whether a number of records is not the published one."""
        return abs(found - self.records) >= self.unit

    def __str__(self) -> str:
        return f"{'' if self.unit == 1 else 'about '}{self.records:,}"


_REFER = "github.com/lichengunc/refer (files), cocodataset.org (train2014)"
_ROBUST = "github.com/jianzongwu/robust-ref-seg, cocodataset.org (train2014)"
_SESAME = "github.com/see-say-segment/sesame, cocodataset.org (train2014)"
_LISA_PLUS = "hub: Senqiao/{} (its data.json renamed), cocodataset.org (train2017)"

EXPECTED: Mapping[str, Expected] = MappingProxyType(
    {
        "ade20k": Expected(20_210, 1, "groups.csail.mit.edu/vision/datasets/ADE20K (ADEChallengeData2016)"),
        "cocostuff": Expected(
            118_287, 1, "github.com/nightrome/cocostuff (stuffthingmaps), cocodataset.org (train2017)"
        ),
        "pascal_part": Expected(4_370, 10, "github.com/facebookresearch/VLPart (datasets), Pascal VOC 2010 (images)"),
        "paco_lvis": Expected(45_790, 10, "github.com/facebookresearch/paco, cocodataset.org (train2017)"),
        "mapillary": Expected(18_000, 1, "www.mapillary.com/dataset/vistas (version 2.0)"),
        "refclef": Expected(17_980, 10, "github.com/lichengunc/refer (files and saiapr_tc-12)"),
        "refcoco": Expected(16_990, 10, _REFER),
        "refcoco+": Expected(16_990, 10, _REFER),
        "refcocog": Expected(21_900, 10, _REFER),
        "refzom": Expected(43_749, 1, "github.com/toggle1995/RIS-DMMI"),
        "grefcoco": Expected(16_990, 10, "github.com/henghuiding/gRefCOCO, cocodataset.org (train2014)"),
        "R-refcoco": Expected(15_100, 10, _ROBUST),
        "R-refcoco+": Expected(15_100, 10, _ROBUST),
        "R-refcocog": Expected(20_040, 10, _ROBUST),
        "fprefcoco": Expected(16_990, 10, _SESAME),
        "fprefcoco+": Expected(16_990, 10, _SESAME),
        "fprefcocog": Expected(21_900, 10, _SESAME),
        "llava_instruct_150k": Expected(157_712, 1, "hub: liuhaotian/LLaVA-Instruct-150K, cocodataset.org (train2017)"),
        "ReasonSeg|train": Expected(239, 1, "github.com/dvlab-research/LISA (section Dataset)"),
        "instance_seg": Expected(58_500, 10, _LISA_PLUS.format("LISA_Plus_Instance_Seg")),
        "cot": Expected(3_040, 10, _LISA_PLUS.format("LISA_Plus_COT")),
        "conversations": Expected(2_650, 10, _LISA_PLUS.format("LISA_Plus_Conversations")),
        "caption": Expected(1_340, 10, _LISA_PLUS.format("LISA_Plus_Caption")),
        "MultiReasonSeg|train": Expected(
            102_350, 10, "github.com/MaverickRen/PixelLM (MUSE), cocodataset.org (train2017, val2017)"
        ),
    }
)
"""By the names of `dataset.registry.SETS`; rounded numbers are those of the paper's Table 9."""
