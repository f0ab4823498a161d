"""What a dataset is to the rest: sources to train on, benchmarks to evaluate on, and the family that opens both."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from dataset.readers.folder import DataFolder
from dataset.sample import Protocol as Asking
from dataset.sample import Sample
from utils.errors import DataError


class Source(Protocol):
    """A dataset that gives training samples; everything random comes from `rng`."""

    def __len__(self) -> int: ...

    def training_sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Record `index` as a sample."""


class Benchmark(Protocol):
    """Samples in a fixed order, how they may be asked, and how answers are scored (`SCORINGS` of evaluation)."""

    scoring: str
    protocols: tuple[Asking, ...]

    def __len__(self) -> int: ...

    def evaluation_sample(self, index: int, *, protocol: Asking) -> Sample:
        """Sample `index`, asked by a protocol."""


@runtime_checkable
class Checkable(Protocol):
    """A source or benchmark whose records can be checked without decoding a photograph, see `dataset.checking`."""

    def __len__(self) -> int: ...

    def files(self, index: int) -> tuple[Path, ...]:
        """The files that record `index` consists of."""

    def check(self, index: int) -> bool:
        """Decode what is annotated; whether there is anything to ask about record `index`.

        Raises:
            DataError: if it cannot be used.
        """

    def without(self, indices: Collection[int]) -> Checkable:
        """The same without some records."""


Record = TypeVar("Record")


def others(records: Sequence[Record], indices: Collection[int]) -> list[Record]:
    """The records that are not at `indices`, for `Checkable.without`."""
    leaving = set(indices)
    return [record for index, record in enumerate(records) if index not in leaving]


@dataclass(frozen=True)
class Expected:
    """What is known of a dataset. The numbers are the publishers', or those of the paper's Table 9, which are rounded;
    nothing depends on them: a part of a dataset trains too.

    Attributes:
        needs: files and folders below the data folder; " or " joins places of which one is enough.
        source: where they come from.
        records: number of training records.
        rounding: by how much that number may be off.
        terms: licence of the annotations, as far as the project repeats it; photographs have others besides.
    """

    needs: tuple[str, ...]
    source: str
    records: int
    rounding: int = 0
    terms: str = "see there"

    def lacks(self, root: Path) -> list[str]:
        """Those of `needs` that are not below a folder."""
        return [need for need in self.needs if not any((root / place).exists() for place in need.split(" or "))]

    def is_usual(self, records: int) -> bool:
        """Whether a number of records is the expected one."""
        return abs(records - self.records) <= self.rounding


COCO_IMAGES = "COCO images: https://cocodataset.org"
TRAIN2014 = "refer_seg/images/mscoco/images/train2014"
TRAIN2017 = "coco/train2017 or refer_seg/images/mscoco/images/train2017"
ARCHIVES = {
    TRAIN2014: 13.0,
    "coco/train2017": 18.0,
    "ade20k/images/training": 0.92,
    "cocostuff/train2017": 0.66,
    "llava_dataset/llava_instruct_150k.json": 0.23,
}
"""About how large the publisher's archive for a place is, in 10^9 bytes, where that is stated; of ADE20K all of it."""
LISA = "https://github.com/dvlab-research/LISA, section Training Data Preparation"
SESAME = f"https://github.com/see-say-segment/sesame, dataset/README.md; {COCO_IMAGES}"


@dataclass(frozen=True, kw_only=True)
class FamilyOptions:
    """What a training source needs besides the data folder.

    Attributes:
        sets: for each family its datasets, joined by `||`; a family that is not named has all of its own.
        max_questions: most conversations of one image (Q).
        max_per_question: most phrases of one conversation, in sem_seg, refer_seg and custom (P).
        explanatory: see `dataset.families.reason_seg`.
        custom_data: folder of the family custom.
        instances: tell the objects of a mask apart: in reason_seg (a polygon each), refer_seg and COCO files of custom
            (an annotation each), multi_reason_seg (a target each).
    """

    sets: Mapping[str, str] = field(default_factory=dict)
    max_questions: int = 3
    max_per_question: int = 3
    explanatory: float = -1.0
    custom_data: str | None = None
    instances: bool = False


@dataclass(frozen=True, kw_only=True)
class Family:
    """Datasets of one kind: what a module of `dataset.families` exports, and `dataset.registry` lists.

    Attributes:
        name: on the command line; the flag `--NAME_data` chooses datasets.
        sets: its datasets, and what each needs on disk.
        chosen: what the flag names by default, joined by ||.
        about: help of the flag.
        source: opens a dataset, as the flag names it, to train on.
        benchmarks: for each dataset that can be evaluated the usual names for `--val_dataset`.
        benchmark: opens one by its name.
    """

    name: str
    sets: Mapping[str, Expected]
    chosen: str
    about: str
    source: Callable[[str, DataFolder, FamilyOptions], Source]
    benchmarks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    benchmark: Callable[[str, DataFolder, FamilyOptions], Benchmark] | None = None

    def known(self, name: str) -> str:
        """A dataset's name.

        Raises:
            DataError: if the family has no such dataset.
        """
        if name not in self.sets:
            raise DataError(name, f"--{self.name}_data has no such dataset; allowed: {', '.join(self.sets)}")
        return name

    def split(self, name: str) -> str:
        """The split of a dataset that is named as NAME|SPLIT, in a family that has one dataset.

        Raises:
            DataError: for another name.
        """
        (usual,) = self.sets
        dataset, _, split = name.partition("|")
        if dataset != usual.partition("|")[0] or not split:
            raise DataError(dataset, f"--{self.name}_data is {usual.partition('|')[0]}|SPLIT, such as {usual}")
        return split
