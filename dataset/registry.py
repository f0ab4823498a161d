"""Registry: names on the command line to training sources and benchmarks.

A new dataset is a class with `__len__` and `training_sample` (see `dataset.mixture.Source`) and one entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dataset.families.custom import Custom, CustomBenchmark
from dataset.families.false_premise import PLAIN_SETS, FalsePremise, FalsePremiseBenchmark
from dataset.families.false_reason_seg import FalseReasonSeg, FalseReasonSegTraining
from dataset.families.label_maps import LabelMaps
from dataset.families.lisa_plus import LisaPlus
from dataset.families.muse import Muse, MuseBenchmark
from dataset.families.parts import Parts
from dataset.families.reason_seg import ReasonSeg, ReasonSegTraining
from dataset.families.refer_seg import ReferBenchmark, ReferSeg
from dataset.families.vqa import Vqa
from dataset.mixture import Source
from dataset.names import FAMILIES, SETS
from dataset.readers.folder import DataFolder
from dataset.sample import Protocol as Asking
from dataset.sample import Sample
from utils.errors import DataError, SettingsError


@dataclass(frozen=True, kw_only=True)
class FamilyOptions:
    """What a training source needs besides the data folder.

    Attributes:
        sets: for each family its datasets, joined by `||`; a family that is not named has all of `SETS`.
        max_questions: most conversations of one image (Q).
        max_per_question: most phrases of one conversation, in sem_seg, refer_seg and custom (P).
        explanatory: see `ReasonSegTraining`.
        custom_data: folder of the family custom.
    """

    sets: Mapping[str, str] = field(default_factory=dict)
    max_questions: int = 3
    max_per_question: int = 3
    explanatory: float = -1.0
    custom_data: str | None = None


class Benchmark(Protocol):
    """Samples in a fixed order, how they may be asked, and how answers are scored."""

    scoring: str
    protocols: tuple[Asking, ...]

    def __len__(self) -> int: ...

    def evaluation_sample(self, index: int, *, protocol: Asking) -> Sample:
        """Sample `index`, asked by a protocol."""


def training_sources(family: str, data: DataFolder, options: FamilyOptions) -> list[tuple[str, Source]]:
    """A family's sources, one for each of its datasets, with names such as `refer_seg/refcoco|train`.

    Raises:
        DataError: for an unknown family or dataset, or annotations that cannot be used.
        FileNotFoundError: for missing data.
    """
    if family not in FAMILIES:
        raise DataError(family, f"--dataset has no such family; allowed: {', '.join(FAMILIES)}")
    if family == "custom":
        return [("custom", _custom(data, options))]
    names = options.sets.get(family, "||".join(SETS[family])).split("||")
    return [(f"{family}/{name}", _SOURCES[family](name, data, options)) for name in names]


def _known(name: str, family: str) -> str:
    if name not in SETS[family]:
        raise DataError(name, f"--{family}_data has no such dataset; allowed: {', '.join(SETS[family])}")
    return name


def _sem_seg(name: str, data: DataFolder, options: FamilyOptions) -> Source:
    kind = Parts if _known(name, "sem_seg") in ("pascal_part", "paco_lvis") else LabelMaps
    return kind(data, name, max_questions=options.max_questions, max_per_question=options.max_per_question)


def _refer_seg(name: str, data: DataFolder, options: FamilyOptions) -> Source:
    _known(name.partition("|")[0], "refer_seg")
    return ReferSeg(data, name, max_questions=options.max_questions, max_per_question=options.max_per_question)


def _false_premise(family: str) -> Callable[[str, DataFolder, FamilyOptions], Source]:
    return lambda name, data, options: FalsePremise(data, _known(name, family), max_questions=options.max_questions)


def _reason_seg(name: str, data: DataFolder, options: FamilyOptions) -> Source:
    name, _, splits = name.partition("|")
    if name != "ReasonSeg" or not splits:
        raise DataError(name, "--reason_seg_data is ReasonSeg|SPLIT, such as ReasonSeg|train")
    return ReasonSegTraining(
        data.root, tuple(splits.split("_")), explanatory=options.explanatory, max_queries=options.max_questions
    )


def _fp_reason_seg(name: str, data: DataFolder, options: FamilyOptions) -> Source:
    name, _, split = name.partition("|")
    if name != "fpReasonSeg" or not split:
        raise DataError(name, "--fp_reason_seg_data is fpReasonSeg|SPLIT, such as fpReasonSeg|train")
    return FalseReasonSegTraining(data.root, split, max_queries=options.max_questions)


def _muse(name: str, data: DataFolder, options: FamilyOptions) -> Source:
    name, _, split = name.partition("|")
    if name != "MultiReasonSeg" or not split:
        raise DataError(name, "--multi_reason_seg_data is MultiReasonSeg|SPLIT, such as MultiReasonSeg|train")
    return Muse(data, split)


_SOURCES: dict[str, Callable[[str, DataFolder, FamilyOptions], Source]] = {
    "sem_seg": _sem_seg,
    "refer_seg": _refer_seg,
    "neg_refer_seg": _false_premise("neg_refer_seg"),
    "correct_refer_seg": _false_premise("correct_refer_seg"),
    "fp_refer_seg": lambda name, data, options: FalsePremise(
        data, _known(name, "fp_refer_seg"), max_questions=options.max_questions, sets=PLAIN_SETS
    ),
    "fp_reason_seg": _fp_reason_seg,
    "vqa": lambda name, data, options: Vqa(data, _known(name, "vqa")),
    "reason_seg": _reason_seg,
    "reason_seg_plus": lambda name, data, options: LisaPlus(
        data, _known(name, "reason_seg_plus"), max_questions=options.max_questions
    ),
    "multi_reason_seg": _muse,
}


def _custom(data: DataFolder, options: FamilyOptions) -> Custom:
    return Custom(
        _custom_folder(options.custom_data),
        data.index,
        max_questions=options.max_questions,
        max_per_question=options.max_per_question,
    )


def _custom_folder(folder: str | None) -> Path:
    if folder is None:
        raise SettingsError("the dataset custom needs --custom_data FOLDER; docs/data.md says what the folder holds")
    return Path(folder)


def open_benchmark(name: str, data: DataFolder, custom_data: str | None = None) -> Benchmark:
    """The benchmark that `--val_dataset` names: `ReasonSeg|val`, `refcoco|unc|testA`, `MultiReasonSeg|test`, ...

    Raises:
        DataError: for an unknown name, or annotations that cannot be used.
        FileNotFoundError: for missing data.
    """
    dataset, _, split = name.partition("|")
    if dataset == "ReasonSeg" and split:
        return ReasonSeg(data.root, split)
    if dataset == "fpReasonSeg" and split:
        return FalseReasonSeg(data.root, split)
    if dataset == "MultiReasonSeg" and split:
        return MuseBenchmark(data, name)
    if dataset in SETS["refer_seg"] and split:
        return ReferBenchmark(data, name)
    if dataset in SETS["neg_refer_seg"] + SETS["correct_refer_seg"] and split:
        return FalsePremiseBenchmark(data, name)
    if name == "custom":
        return CustomBenchmark(_custom_folder(custom_data), data.index)
    refer = ", ".join(SETS["refer_seg"] + SETS["neg_refer_seg"] + SETS["correct_refer_seg"])
    raise DataError(
        name,
        "--val_dataset has no such benchmark; allowed: ReasonSeg|SPLIT, fpReasonSeg|SPLIT, MultiReasonSeg|SPLIT, "
        f"custom, and NAME|SPLIT_BY|SPLIT such as refcoco|unc|testA with one of the names {refer}",
    )
