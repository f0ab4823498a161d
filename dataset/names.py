"""Names of the families and their datasets, as the command line has them."""

SETS: dict[str, tuple[str, ...]] = {
    "sem_seg": ("ade20k", "cocostuff", "pascal_part", "paco_lvis", "mapillary"),
    "refer_seg": ("refclef", "refcoco", "refcoco+", "refcocog", "refzom", "grefcoco"),
    "neg_refer_seg": ("R-refcoco", "R-refcoco+", "R-refcocog"),
    "correct_refer_seg": ("fprefcoco", "fprefcoco+", "fprefcocog"),
    "fp_refer_seg": ("refclef", "refcoco", "refcoco+", "refcocog"),
    "vqa": ("llava_instruct_150k",),
    "reason_seg": ("ReasonSeg|train",),
    "fp_reason_seg": ("fpReasonSeg|train",),
    "reason_seg_plus": ("instance_seg", "cot", "conversations", "caption"),
    "multi_reason_seg": ("MultiReasonSeg|train",),
}
"""The paper's eight families and the datasets of each (Table 9), and two that the published code has besides:
`fp_refer_seg` and `fp_reason_seg`."""

FAMILIES = (*SETS, "custom")

_UNC, _UMD = ("val", "testA", "testB"), ("val", "test")
BENCHMARKS: dict[str, tuple[str, ...]] = {
    **{name: tuple(f"{name}|unc|{split}" for split in _UNC) for name in ("refclef", "refcoco", "refcoco+", "grefcoco")},
    "refcocog": tuple(f"refcocog|umd|{split}" for split in _UMD),
    "refzom": ("refzom|final|test",),
    "ReasonSeg": ("ReasonSeg|val", "ReasonSeg|test"),
    "fpReasonSeg": ("fpReasonSeg|val", "fpReasonSeg|test"),
    "MultiReasonSeg": ("MultiReasonSeg|val", "MultiReasonSeg|test"),
    **{name: (f"{name}|val",) for family in ("neg_refer_seg", "correct_refer_seg") for name in SETS[family]},
}
"""The usual benchmarks of a dataset."""
