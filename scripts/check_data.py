"""Which datasets can train, what is missing and where it comes from: `python -m scripts.check_data DATA`.

`--dataset "sem_seg||refer_seg"` asks whether that mixture can train; the flags that choose its datasets are those of
train_ds.py. The exit status is 0 if it can. `--sheet sheet.png` draws a sample of every dataset.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from anchorseg.data import data_folder
from anchorseg.settings import TrainSettings
from dataset.expected import EXPECTED
from dataset.mixture import MAX_SKIPPED, Source
from dataset.readers.folder import DataFolder
from dataset.readers.records import Records
from dataset.registry import FAMILIES, SETS, FamilyOptions, training_sources
from dataset.sample import RejectSlot, Sample, TargetSlot
from utils import drawing
from utils.errors import DataError, SettingsError, UserError, exit_on_error
from utils.pictures import check_picture_path, save_picture
from utils.seeding import generator_for

_TRIED, _SHOWN, _COLUMNS = 5, 3, 2


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What came of opening a dataset and reading a few of its records.

    Attributes:
        state: `ready`, `missing` (files are) or `broken`.
        reason: why it is not ready.
        records: their number.
        malformed: what is wrong with some of them.
        picture: (H, W, 3) uint8 RGB of one sample, or None.
    """

    state: str
    reason: str = ""
    records: int = 0
    malformed: tuple[str, ...] = ()
    picture: np.ndarray | None = None


def indexed_files(value: object) -> Iterator[Records]:
    """Every annotation file with an index that a source reads, however deep it keeps it."""
    if isinstance(value, Records):
        yield value
    elif type(value).__module__.startswith("dataset.") and hasattr(value, "__dict__"):
        for part in vars(value).values():
            yield from indexed_files(part)


def examine(name: str, data: DataFolder, options: FamilyOptions) -> Finding:
    """Open a dataset, `FAMILY/DATASET` or `custom`, and read a few records, evenly spread."""
    family, _, chosen = name.partition("/")
    try:
        ((_, source),) = training_sources(family, data, replace(options, sets={family: chosen}))
    except FileNotFoundError as error:
        return Finding(state="missing", reason=str(error))
    except UserError as error:
        return Finding(state="broken", reason=str(error))
    samples, malformed = read_some(source)
    files = list(indexed_files(source))
    known = [f"{file.source}: {reason}" for file in files for reason in file.problems.values()]
    reason = "" if samples else "none of the records tried can be used"
    if any(len(file.problems) > MAX_SKIPPED * len(file) for file in files):
        reason = f"more than {MAX_SKIPPED:.0%} of the records are malformed, at which training stops"
    return Finding(
        state="broken" if reason else "ready",
        reason=reason,
        records=len(source),
        malformed=tuple(dict.fromkeys(known + malformed)),
        picture=drawn(samples[0], name) if samples else None,
    )


def read_some(source: Source) -> tuple[list[Sample], list[str]]:
    """A few training samples, and what is wrong with those that are malformed."""
    samples, malformed = [], []
    for index in np.unique(np.linspace(0, len(source) - 1, _TRIED).astype(int)).tolist():
        try:
            samples.append(source.training_sample(index, generator_for(0, index)))
        except DataError as error:
            malformed.append(str(error))
    return samples, malformed


def drawn(sample: Sample, name: str) -> np.ndarray:
    """The first question of a sample with its truth; its answer is the caption."""
    turn = sample.conversations[0].turns[0]
    answer = turn.answer or ()
    slots = [part for part in answer if not isinstance(part, str)]
    targets = np.array([slot.mask for slot in slots if isinstance(slot, TargetSlot)], dtype=int)
    truth = sample.masks[targets].any(axis=0) if slots else None
    ignore = None if sample.ignore is None or truth is None else sample.ignore[targets].any(axis=0) & ~truth
    tokens = {TargetSlot: "<SEG>", RejectSlot: "<REJ>"}
    words = " ".join(part if isinstance(part, str) else tokens[type(part)] for part in answer)
    return drawing.panel(sample.image, turn.question, truth=truth, ignore=ignore, caption=f"{name}: {words}")


def lines(name: str, finding: Finding, root: Path) -> Iterator[str]:
    """The report about one dataset."""
    expected = EXPECTED.get(name)
    count = f"{finding.records:,} records" if finding.records else ""
    if expected is not None and finding.records and not expected.is_usual(finding.records):
        count += f" (the whole dataset has {expected.records:,})"
    yield f"{finding.state:<8} {name:<40} {count}".rstrip()
    lacking = expected.lacks(root) if expected is not None and finding.state == "missing" else []
    if expected is not None and lacking:
        found = [need for need in expected.needs if need not in lacking]
        yield f"         found: {', '.join(found) or 'nothing'}; missing: {', '.join(lacking)}"
    elif finding.reason:
        yield f"         {finding.reason}"
    if expected is not None and finding.state == "missing":
        yield f"         from: {expected.source}"
    if finding.malformed:
        yield f"         malformed: {len(finding.malformed)} known, such as"
        yield from (f"           {sentence}" for sentence in finding.malformed[:_SHOWN])


def mixture(families: str, chosen: dict[str, str], custom_data: str | None) -> list[str]:
    """Names of the datasets that a mixture reads.

    Raises:
        SettingsError: for an unknown family, or `custom` without a folder.
    """
    names: list[str] = []
    for family in families.split("||"):
        if family not in FAMILIES:
            raise SettingsError(f"--dataset {family}: no such family; allowed: {', '.join(FAMILIES)}")
        if family == "custom" and custom_data is None:
            raise SettingsError("--dataset custom needs --custom_data FOLDER (docs/data.md)")
        names += [f"{family}/{name}" for name in chosen[family].split("||")] if family in chosen else [family]
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """Open everything, report, draw; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", help="folder that holds all datasets, --dataset_dir of a run")
    parser.add_argument("--dataset", help="families of a mixture, joined by ||; none: everything that is there")
    for family in SETS:
        default = getattr(TrainSettings, f"{family}_data")
        parser.add_argument(f"--{family}_data", default=default, help=f"datasets of {family}, joined by ||")
    parser.add_argument("--custom_data", help="folder of the family custom")
    parser.add_argument("--explanatory", type=float, default=TrainSettings.explanatory, help="as in train_ds.py")
    parser.add_argument("--index_dir", help="as in train_ds.py")
    parser.add_argument("--sheet", help="picture to write, with a sample of every dataset that can train")
    given = parser.parse_args(arguments)

    data = data_folder(given.dir, given.index_dir)
    options = FamilyOptions(explanatory=given.explanatory, custom_data=given.custom_data)
    chosen = {family: getattr(given, f"{family}_data") for family in SETS}
    wanted = mixture(given.dataset, chosen, given.custom_data) if given.dataset else []
    every = [f"{family}/{name}" for family, names in SETS.items() for name in names]
    findings: dict[str, Finding] = {}
    if given.sheet:
        check_picture_path(given.sheet)
    for name in dict.fromkeys([*every, *(["custom"] if given.custom_data else []), *wanted]):
        findings[name] = examine(name, data, options)
        print("\n".join(lines(name, findings[name], data.root)), flush=True)
    if given.sheet:
        write_sheet(Path(given.sheet), [f.picture for f in findings.values() if f.picture is not None])
    asked = wanted or [name for name, finding in findings.items() if finding.state != "missing"]
    failing = [name for name in asked if findings[name].state != "ready"]
    subject = f"the mixture {given.dataset}" if wanted else "what is there"
    print(f"{subject} {'can train' if asked and not failing else 'cannot train: ' + (', '.join(failing) or 'nothing')}")
    return 0 if asked and not failing else 1


def write_sheet(path: Path, pictures: list[np.ndarray]) -> None:
    """Write pictures as one, if there are any."""
    if pictures:
        save_picture(path, drawing.contact_sheet(pictures, _COLUMNS))
        print(f"picture: {path}")


if __name__ == "__main__":
    with exit_on_error():
        sys.exit(main())
