"""What a data folder holds: each dataset opened, its records checked or a few of them read, some drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from dataset.checking import check_records
from dataset.mixture import MAX_SKIPPED
from dataset.readers.folder import DataFolder
from dataset.readers.records import Records
from dataset.registry import FAMILIES, open_benchmark, training_sources
from dataset.sample import RejectSlot, Sample, TargetSlot
from dataset.source import Checkable, FamilyOptions, Source
from utils import drawing
from utils.errors import DataError, UserError
from utils.seeding import generator_for

_TRIED, _SHOWN, _DRAWN = 5, 3, 3


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What came of opening a dataset and reading a few of its records.

    Attributes:
        state: `ready`, `val only` (nothing to train on, but to evaluate on), `missing` (files are) or `broken`.
        reason: why it is not ready.
        records: their number.
        left_out: how many of them nothing can be asked about.
        malformed: what is wrong with some of them.
        pictures: (H, W, 3) uint8 RGB of a few samples.
        source: the records that can be used, where there are any.
    """

    state: str
    reason: str = ""
    records: int = 0
    left_out: int = 0
    malformed: tuple[str, ...] = ()
    pictures: tuple[np.ndarray, ...] = ()
    source: Source | None = None


def indexed_files(value: object) -> Iterator[Records]:
    """Every annotation file with an index that a source reads, however deep it keeps it."""
    if isinstance(value, Records):
        yield value
    elif type(value).__module__.startswith("dataset.") and hasattr(value, "__dict__"):
        for part in vars(value).values():
            yield from indexed_files(part)


def examine(name: str, data: DataFolder, options: FamilyOptions, *, workers: int = 0) -> Finding:
    """Open a dataset, `FAMILY/DATASET` or `custom`, check every record that can be, and read a few, evenly spread.

    Args:
        name: of the dataset.
        data: where the datasets are.
        options: as of a run.
        workers: processes that check.
    """
    family, _, chosen = name.partition("/")
    try:
        ((_, source),) = training_sources(family, data, replace(options, sets={family: chosen}))
    except (UserError, FileNotFoundError) as error:
        usual = FAMILIES[family].benchmarks.get(chosen.partition("|")[0], ()) if family in FAMILIES else ()
        benchmarks = [benchmark for benchmark in usual if chosen and _opens(benchmark, data)]
        if benchmarks:
            return Finding(state="val only", reason=f"no training: {error}. Can be evaluated: {', '.join(benchmarks)}")
        return Finding(state="missing" if isinstance(error, FileNotFoundError) else "broken", reason=str(error))
    known = [f"{file.source}: {reason}" for file in indexed_files(source) for reason in file.problems.values()]
    reason, left_out, records = "", 0, len(source)
    if any(len(file.problems) > MAX_SKIPPED * len(file) for file in indexed_files(source)):
        reason = f"more than {MAX_SKIPPED:.0%} of the records are malformed, at which training stops"
    if isinstance(source, Checkable):
        outcome = check_records(source, data.index, name=name, workers=workers)
        known += outcome.faults.values()
        left_out = len(outcome.empty)
        if len(outcome.faults) > MAX_SKIPPED * outcome.count:
            reason = f"more than {MAX_SKIPPED:.0%} of the records cannot be used, at which training stops"
        source = cast(Source, source.without({*outcome.faults, *outcome.empty}))
    samples, malformed = read_some(source)
    if not samples:
        reason = reason or "none of the records tried can be used"
    return Finding(
        state="broken" if reason else "ready",
        reason=reason,
        records=records,
        left_out=left_out,
        malformed=tuple(dict.fromkeys(known + malformed)),
        pictures=tuple(drawn(sample, name) for sample in samples[:_DRAWN]),
        source=source if samples else None,
    )


def _opens(benchmark: str, data: DataFolder) -> bool:
    try:
        return len(open_benchmark(benchmark, data)) > 0
    except (UserError, FileNotFoundError):
        return False


def read_some(source: Source) -> tuple[list[Sample], list[str]]:
    """A few training samples, and what is wrong with those that are malformed."""
    samples, malformed = [], []
    tried = np.unique(np.linspace(0, len(source) - 1, _TRIED).astype(int)).tolist() if len(source) else []
    for index in tried:
        try:
            samples.append(source.training_sample(index, generator_for(0, index)))
        except DataError as error:
            malformed.append(str(error))
    return samples, malformed


def drawn(sample: Sample, name: str) -> np.ndarray:
    """The first question of a sample with its truth; its record and answer are the caption."""
    turn = sample.conversations[0].turns[0]
    answer = turn.answer or ()
    slots = [part for part in answer if not isinstance(part, str)]
    targets = np.array([slot.mask for slot in slots if isinstance(slot, TargetSlot)], dtype=int)
    truth = sample.masks[targets].any(axis=0) if slots else None
    ignore = None if sample.ignore is None or truth is None else sample.ignore[targets].any(axis=0) & ~truth
    tokens = {TargetSlot: "<SEG>", RejectSlot: "<REJ>"}
    file = Path(sample.record).name
    words = " ".join(part if isinstance(part, str) else tokens[type(part)] for part in answer)
    return drawing.panel(sample.image, turn.question, truth=truth, ignore=ignore, caption=f"{name}, {file}: {words}")


def lines(name: str, finding: Finding, root: Path) -> Iterator[str]:
    """The report about one dataset."""
    family, _, dataset = name.partition("/")
    expected = FAMILIES[family].sets.get(dataset)
    count = f"{finding.records:,} records" if finding.records else ""
    if expected is not None and finding.records and not expected.is_usual(finding.records):
        count += f" (the whole dataset has {expected.records:,})"
    yield f"{finding.state:<8} {name:<40} {count}".rstrip()
    incomplete = finding.state in ("missing", "val only")
    lacking = expected.lacks(root) if expected is not None and incomplete else []
    if expected is not None and lacking:
        found = [need for need in expected.needs if need not in lacking]
        yield f"         found: {', '.join(found) or 'nothing'}; missing: {', '.join(lacking)}"
    if finding.reason and (finding.state == "val only" or not lacking):
        yield f"         {finding.reason}"
    if expected is not None and incomplete:
        yield f"         from: {expected.source}"
    if finding.left_out:
        yield f"         left out: {finding.left_out:,}, in which no pixel belongs to any label"
    if finding.malformed:
        yield f"         malformed: {len(finding.malformed)} known, such as"
        yield from (f"           {sentence}" for sentence in finding.malformed[:_SHOWN])
