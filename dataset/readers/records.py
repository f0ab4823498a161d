"""Records: an annotation file as a memory-mapped index, made once and opened without parsing.

An index is a folder: `records.bin` (one JSON text after another), `ends.npy` and `sums.npy` (where each ends, and its
CRC-32), further arrays, and `header`, which knows size and CRC-32 of every file. Its name holds a hash of the source's
content, so that an edited file is indexed anew and a copied one is not. A second table remembers the hash of a path
with its size and time, so that opening reads the header and the arrays alone.

A damaged index is never read: it is found on opening and made again, or, where bits change without a trace in the
file's size and time, found when the record is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from dataset.readers.checks import MalformedError
from dataset.readers.json_stream import stream
from dataset.readers.sealed import read_sealed, write_sealed
from utils.errors import DataError
from utils.files import new_folder

VERSION = 2
_HEADER, _RECORDS = "header", "records.bin"
_PROBLEM = "!"
_SHOWN = 5


def default_index_folder() -> Path:
    """`anchorseg/index` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "anchorseg" / "index"


class RecordWriter:
    """Writes an index into a folder.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = (folder / _RECORDS).open("wb")
        self._ends: list[int] = []
        self._sums: list[int] = []
        self._problems: list[tuple[int, str]] = []
        self.header: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, record: Any) -> int:
        """Append a record of plain data; returns its number."""
        content = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        self._file.write(content)
        self._sums.append(zlib.crc32(content))
        self._ends.append(self._file.tell())
        return len(self._ends) - 1

    def add_problem(self, reason: str) -> int:
        """Append what is wrong with a record in its place; returns its number."""
        self._problems.append((len(self._ends), reason))
        return self.add({_PROBLEM: reason})

    def array(self, name: str, values: Any) -> None:
        """Store an array beside the records."""
        np.save(self._folder / f"{name}.npy", np.asarray(values))

    def finish(self) -> None:
        """Write what is left."""
        self._file.close()
        self.array("ends", np.asarray(self._ends, dtype=np.int64))
        self.array("sums", np.asarray(self._sums, dtype=np.uint32))
        files = {path.name: [*_state(path), _sum(path)] for path in sorted(self._folder.iterdir())}
        write_sealed(self._folder / _HEADER, {**self.header, "problems": self._problems, "files": files})


class Records(Sequence[Any]):
    """Records of an index, each parsed when it is read.

    Args:
        folder: of the index.
        source: file it was made from, for messages.
    """

    def __init__(self, folder: Path, source: Path) -> None:
        self.source = source
        self._folder = folder
        self._ends, self._sums = self.array("ends"), self.array("sums")
        # Read at its place, not mapped: every mapped record would stay in a worker's resident memory.
        self._file = (folder / _RECORDS).open("rb", buffering=0)
        self.header: dict[str, Any] = read_sealed(folder / _HEADER)

    def __reduce__(self) -> tuple[type[Records], tuple[Path, Path]]:
        """Another process opens the files itself."""
        return Records, (self._folder, self.source)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: Any) -> Any:
        """Record `number`.

        Raises:
            DataError: if the record is malformed, or the index has been damaged since it was opened.
            IndexError: if there is no such record.
        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        begin = int(self._ends[number - 1]) if number else 0
        content = os.pread(self._file.fileno(), int(self._ends[number]) - begin, begin)
        if zlib.crc32(content) != self._sums[number]:
            raise DataError(
                self.source,
                f"its index {self._folder} is damaged at record {number}; delete that folder: it is made again",
            )
        record = json.loads(content.decode("utf-8", "surrogatepass"))
        if isinstance(record, dict) and _PROBLEM in record:
            raise DataError(self.source, record[_PROBLEM])
        return record

    def array(self, name: str) -> np.ndarray:
        """A stored array, memory-mapped."""
        return np.load(self._folder / f"{name}.npy", mmap_mode="r")

    @property
    def problems(self) -> dict[int, str]:
        """What is wrong with malformed records, by number."""
        return {int(number): reason for number, reason in self.header["problems"]}

    def refuse_problems(self) -> None:
        """Stop where no record may be left out.

        Raises:
            DataError: naming the first malformed records.
        """
        reasons = list(self.problems.values())
        if reasons:
            shown = "; ".join(reasons[:_SHOWN])
            raise DataError(
                self.source, f"{len(reasons)} of {len(self)} records are malformed: {shown}. Correct the file"
            )


Build = Callable[[Path, RecordWriter], None]


def index_list(clean: Callable[[Any, str], dict[str, Any]]) -> Build:
    """What `open_records` needs for a JSON file that is one list of records.

    Args:
        clean: (record, its name) to what is kept of it; raises `MalformedError`.
    """

    def build(path: Path, writer: RecordWriter) -> None:
        for number, record in enumerate(stream(path, "item")):
            try:
                writer.add(clean(record, f"record {number}"))
            except MalformedError as error:
                writer.add_problem(str(error))
        if not len(writer):
            raise DataError(path, "it holds no records: it must be a JSON list of objects; fetch it again")

    return build


def open_records(source: Path, index: Path, *, kind: str, build: Build) -> Records:
    """Open a file's index, making it first where there is none or it is damaged.

    Several processes may call this at once: one builds, the others wait.

    Args:
        source: the annotation file.
        index: folder of all indices.
        kind: name of what `build` makes; one file may have several.
        build: reads the file into the writer; it raises `DataError` for a file that it cannot use at all.

    Raises:
        DataError: if the file is missing or its index cannot be written, or as `build` does.
    """
    if not source.is_file():
        raise DataError(source, "the annotation file does not exist")
    state = source.stat()
    place = f"{source.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\0{kind}\0{VERSION}"
    known = index / "known" / hashlib.blake2b(place.encode(), digest_size=16).hexdigest()
    folder = _whole(index, known, place)
    if folder is None:
        try:
            known.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{known}.lock"):
                folder = _whole(index, known, place)
                if folder is None:
                    folder = index / f"{kind}-{VERSION}-{_content_hash(source)}"
                    _make(source, folder, build)
                    write_sealed(known, [place, folder.name])
        except OSError as error:
            raise DataError(
                source,
                f"its index cannot be made in {index} ({error.strerror or error}); give --index_dir a folder that can "
                "be written and has room",
            ) from error
    return Records(folder, source)


def _whole(index: Path, known: Path, place: str) -> Path | None:
    """The index that a source, as it is now, is known to have, if it is not damaged."""
    match read_sealed(known):
        case [found, str(name)] if found == place and damage(index / name) is None:
            return index / name
    return None


def damage(folder: Path) -> str | None:
    """What is wrong with an index, or None.

    Arrays are read and summed; the records are where their size or time is not what it was.
    """
    header = read_sealed(folder / _HEADER)
    if not isinstance(header, dict) or header.get("name") != folder.name:
        return f"its {_HEADER} is missing, damaged or another's"
    for name, (size, time, checksum) in header["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if _state(path)[0] != size:
            return f"{name} has {_state(path)[0]} bytes instead of {size}"
        if (name != _RECORDS or _state(path)[1] != time) and _sum(path) != checksum:
            return f"the checksum of {name} does not fit"
    return None


def _state(path: Path) -> tuple[int, int]:
    """Size in bytes, and time of the last change."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _sum(path: Path) -> int:
    """CRC-32 of a file."""
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def _content_hash(path: Path) -> str:
    from utils.progress import Bar  # tqdm takes a tenth of the time of --help

    digest = hashlib.blake2b(digest_size=16)
    size = path.stat().st_size
    bar = Bar(total=size, unit="B", unit_scale=True, desc=f"{path.name} hash", delay=2, leave=False)
    with path.open("rb") as file, bar:
        while chunk := file.read(1 << 24):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _make(source: Path, folder: Path, build: Build) -> None:
    from utils.progress import Bar  # tqdm takes a tenth of the time of --help

    # The same content may have come under another path, whose lock is another one.
    with FileLock(f"{folder}.lock"):
        reason = damage(folder)
        if reason is None:
            return
        if os.path.lexists(folder):
            Bar.write(f"{source}: its index {folder} is damaged ({reason}) and is made again")
        # What a killed process left is nobody's: only the owner of the lock writes here.
        for path in (folder, *folder.parent.glob(f".{folder.name}.*.tmp")):
            _remove(path)
        with new_folder(folder) as temporary:
            writer = RecordWriter(temporary)
            writer.header["name"] = folder.name
            build(source, writer)
            writer.finish()
    problems = Records(folder, source).problems
    for reason in list(problems.values())[:_SHOWN]:
        Bar.write(f"{source}: {reason}")
    if len(problems) > _SHOWN:
        Bar.write(f"{source}: {len(problems) - _SHOWN} more records are malformed")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
