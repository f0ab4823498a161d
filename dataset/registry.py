"""Registry: names on the command line to training sources and benchmarks.

A further dataset is a module that exports a `Family`, and one line in `FAMILIES`.
"""

from __future__ import annotations

from dataset.families import (
    custom,
    false_premise,
    false_reason_seg,
    lisa_plus,
    muse,
    reason_seg,
    refer_seg,
    sem_seg,
    vqa,
)
from dataset.readers.folder import DataFolder
from dataset.source import Benchmark, Family, FamilyOptions, Source
from utils.errors import DataError

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        sem_seg.FAMILY,
        refer_seg.FAMILY,
        false_premise.NEGATIVE,
        false_premise.CORRECTED,
        false_premise.PLAIN,
        vqa.FAMILY,
        reason_seg.FAMILY,
        false_reason_seg.FAMILY,
        lisa_plus.FAMILY,
        muse.FAMILY,
        custom.FAMILY,
    )
}
"""The paper's eight families (Table 9), two that the published code has besides (`fp_refer_seg`, `fp_reason_seg`), and
own photographs."""


def datasets() -> dict[str, tuple[str, ...]]:
    """The datasets of each family that has any."""
    return {name: tuple(family.sets) for name, family in FAMILIES.items() if family.sets}


def training_sources(family: str, data: DataFolder, options: FamilyOptions) -> list[tuple[str, Source]]:
    """A family's sources, one for each of its datasets, with names such as `refer_seg/refcoco|train`.

    Raises:
        DataError: for an unknown family or dataset, or annotations that cannot be used.
        FileNotFoundError: for missing data.
    """
    if family not in FAMILIES:
        raise DataError(family, f"--dataset has no such family; allowed: {', '.join(FAMILIES)}")
    found = FAMILIES[family]
    if not found.sets:
        return [(family, found.source(family, data, options))]
    names = options.sets.get(family, "||".join(found.sets)).split("||")
    return [(f"{family}/{name}", found.source(name, data, options)) for name in names]


def open_benchmark(name: str, data: DataFolder, custom_data: str | None = None) -> Benchmark:
    """The benchmark that `--val_dataset` names: `ReasonSeg|val`, `refcoco|unc|testA`, `MultiReasonSeg|test`, ...

    Raises:
        DataError: for an unknown name, or annotations that cannot be used.
        FileNotFoundError: for missing data.
    """
    dataset, _, split = name.partition("|")
    for family in FAMILIES.values():
        usual = family.benchmarks.get(dataset, ())
        if family.benchmark is not None and usual and bool(split) == ("|" in usual[0]):
            return family.benchmark(name, data, FamilyOptions(custom_data=custom_data))
    usual_names = [names[0] for family in FAMILIES.values() for names in family.benchmarks.values()]
    raise DataError(
        name, f"--val_dataset has no such benchmark; allowed: {', '.join(usual_names)}, and other splits of these"
    )
