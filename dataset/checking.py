"""Every record of a dataset checked before a run: its annotations decoded, its images' headers read.

Only families whose annotations can be decoded without the photographs are `Checkable`. The outcome is kept beside the
indices, under a digest of all files that it depends on, so that unchanged data are checked once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from torch.utils.data import DataLoader, Dataset

from dataset.readers.sealed import read_sealed, write_sealed
from dataset.source import Checkable
from utils.errors import DataError
from utils.progress import Bar

_FORMAT = 1
"""Raised when records are checked in another way, so that kept outcomes are forgotten."""

_TOGETHER = 32
_FEW = 4 * _TOGETHER
"""Fewer records are checked in this process."""


@dataclass(frozen=True)
class Outcome:
    """What came of checking records 0 to `count` - 1.

    Attributes:
        count: of all records.
        faults: why a record cannot be used, by its number.
        empty: numbers of the records in which there is nothing to ask for.
    """

    count: int
    faults: dict[int, str]
    empty: tuple[int, ...]


def check_records(source: Checkable, folder: Path, *, name: str, workers: int) -> Outcome:
    """Check every record, or recall what came of it when its files were the same.

    Args:
        source: of the records.
        folder: of indices; where it cannot be written nothing is kept.
        name: for the progress bar.
        workers: processes that check.
    """
    path = folder / "checked" / _digest(source)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):  # other ranks wait here, and then recall
            known = _recalled(path, len(source))
            if known is None:
                known = _check_all(source, name, workers)
                write_sealed(path, [known.count, list(known.faults.items()), known.empty])
    except OSError:
        known = _check_all(source, name, workers)
    return known


def _digest(source: Checkable) -> str:
    """Of the kind of records and of path, size and time of all files behind them."""
    kind = type(source)
    total = hashlib.blake2b(f"{_FORMAT} {kind.__module__}.{kind.__qualname__}".encode(), digest_size=16)
    for index in range(len(source)):
        for path in source.files(index):
            try:
                state = path.stat()
            except OSError:
                total.update(f"{path} missing\n".encode("utf-8", "surrogateescape"))
            else:
                line = f"{path.absolute()} {state.st_size} {state.st_mtime_ns} {state.st_ino}\n"
                total.update(line.encode("utf-8", "surrogateescape"))
        total.update(b"\n")
    return total.hexdigest()


def _recalled(path: Path, count: int) -> Outcome | None:
    known = read_sealed(path)
    if known is None or known[0] != count:
        return None
    return Outcome(count, dict(map(tuple, known[1])), tuple(known[2]))


@dataclass(frozen=True)
class _Checks(Dataset[list[tuple[int, str | None]]]):
    """Records in groups: of each that is not as it should be its number and why, None where there is nothing to ask."""

    source: Checkable

    def __len__(self) -> int:
        return -(-len(self.source) // _TOGETHER)

    def __getitem__(self, group: int) -> list[tuple[int, str | None]]:
        first = group * _TOGETHER
        return list(self._remarks(range(first, min(first + _TOGETHER, len(self.source)))))

    def _remarks(self, indices: Iterable[int]) -> Iterable[tuple[int, str | None]]:
        for index in indices:
            try:
                if not self.source.check(index):
                    yield index, None
            except DataError as error:
                yield index, str(error)


def _check_all(source: Checkable, name: str, workers: int) -> Outcome:
    checks = _Checks(source)
    read = DataLoader(checks, batch_size=None, num_workers=workers if len(source) >= _FEW else 0)
    bar = Bar(read, desc=f"checking {name}", unit_scale=_TOGETHER, unit=" records", delay=2, leave=False)
    remarks = [remark for group in bar for remark in group]
    faults = {index: reason for index, reason in remarks if reason is not None}
    return Outcome(len(source), faults, tuple(index for index, reason in remarks if reason is None))


def refuse_faults(name: str, outcome: Outcome, *, most: float) -> None:
    """Refuse a dataset with too many records that cannot be used.

    Args:
        name: of the dataset.
        outcome: of `check_records`.
        most: share of the records that may be so; 0 refuses the first.

    Raises:
        DataError: naming the first three.
    """
    if len(outcome.faults) > most * outcome.count:
        raise DataError(name, sentence(outcome))


def sentence(outcome: Outcome, shown: int = 3) -> str:
    """How many records cannot be used, and the first of them."""
    first: Sequence[str] = list(outcome.faults.values())[:shown]
    more = "; ..." if len(outcome.faults) > shown else ""
    return f"{len(outcome.faults)} of {outcome.count} records cannot be used: {'; '.join(first)}{more}"
