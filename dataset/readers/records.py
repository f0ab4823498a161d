"""Records: an annotation file as a memory-mapped index, made once and opened without parsing.

An index is a folder: `records.bin` (one JSON text after another), `ends.npy` (where each ends), further arrays, and
`header.json`. Its name holds a hash of the source's content, so that an edited file is indexed anew and a copied one is
not. A second table remembers the hash of a path with its size and time, so that opening reads nothing but the header.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from dataset.readers.checks import MalformedError
from dataset.readers.json_stream import stream
from utils.errors import DataError
from utils.files import new_folder, write_json, write_text

VERSION = 1
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
        self._file = (folder / "records.bin").open("wb")
        self._ends: list[int] = []
        self._problems: list[tuple[int, str]] = []
        self.header: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, record: Any) -> int:
        """Append a record of plain data; returns its number."""
        self._file.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))
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
        write_json(self._folder / "header.json", {**self.header, "problems": self._problems})


class Records(Sequence[Any]):
    """Records of an index, each parsed when it is read.

    Args:
        folder: of the index.
        source: file it was made from, for messages.
    """

    def __init__(self, folder: Path, source: Path) -> None:
        self.source = source
        self._folder = folder
        self._ends = np.load(folder / "ends.npy", mmap_mode="r")
        # Read at its place, not mapped: every mapped record would stay in a worker's resident memory.
        self._file = (folder / "records.bin").open("rb", buffering=0)
        self.header: dict[str, Any] = json.loads((folder / "header.json").read_text(encoding="utf-8"))

    def __reduce__(self) -> tuple[type[Records], tuple[Path, Path]]:
        """Another process opens the files itself."""
        return Records, (self._folder, self.source)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: Any) -> Any:
        """Record `number`.

        Raises:
            DataError: if the record is malformed; the message names it.
            IndexError: if there is no such record.
        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        begin = int(self._ends[number - 1]) if number else 0
        content = os.pread(self._file.fileno(), int(self._ends[number]) - begin, begin)
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
    """Open a file's index, making it first where there is none.

    Several processes may call this at once: one builds, the others wait.

    Args:
        source: the annotation file.
        index: folder of all indices.
        kind: name of what `build` makes; one file may have several.
        build: reads the file into the writer; it raises `DataError` for a file that it cannot use at all.

    Raises:
        DataError: if the file is missing, or as `build` does.
    """
    if not source.is_file():
        raise DataError(source, "the annotation file does not exist")
    state = source.stat()
    place = f"{source.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\0{kind}\0{VERSION}"
    known = index / "known" / hashlib.blake2b(place.encode(), digest_size=16).hexdigest()
    folder = _known_folder(index, known)
    if folder is None:
        known.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{known}.lock"):
            folder = _known_folder(index, known)
            if folder is None:
                folder = index / f"{kind}-{VERSION}-{_content_hash(source)}"
                _make(source, folder, build)
                write_text(known, folder.name)
    return Records(folder, source)


def _known_folder(index: Path, known: Path) -> Path | None:
    if not known.is_file():
        return None
    folder = index / known.read_text(encoding="utf-8")
    return folder if (folder / "header.json").is_file() else None


def _content_hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    size = path.stat().st_size
    bar = tqdm(total=size, unit="B", unit_scale=True, desc=f"{path.name} hash", delay=2, leave=False)
    with path.open("rb") as file, bar:
        while chunk := file.read(1 << 24):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _make(source: Path, folder: Path, build: Build) -> None:
    # The same content may have come under another path, whose lock is another one.
    with FileLock(f"{folder}.lock"):
        if (folder / "header.json").is_file():
            return
        shutil.rmtree(folder, ignore_errors=True)
        with new_folder(folder) as temporary:
            writer = RecordWriter(temporary)
            build(source, writer)
            writer.finish()
    problems = Records(folder, source).problems
    for reason in list(problems.values())[:_SHOWN]:
        tqdm.write(f"{source}: {reason}")
    if len(problems) > _SHOWN:
        tqdm.write(f"{source}: {len(problems) - _SHOWN} more records are malformed")
