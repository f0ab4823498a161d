"""JSON files of any size, item by item, in little memory."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import ijson
import numpy as np

from utils.errors import DataError
from utils.files import refuse_irregular
from utils.json_text import foreign_content

if TYPE_CHECKING:
    from utils.progress import Bar

_DEEPEST = 100
_LONGEST_TEXT = 1 << 24
_LONGEST_NUMBER = 1000
"""ijson takes time that grows with the square of the nesting, and crashes on very long numbers."""

_BUFFER = 1 << 20
_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_DIGITS = bytes(ord("0") if 48 <= byte < 58 else ord(" ") for byte in range(256))
_STEP = np.zeros(256, np.int8)
_STEP[list(b"[{")], _STEP[list(b"]}")] = 1, -1


class _Bounds:
    """Watches bytes go by for nesting and numbers beyond the bounds; what stands in texts does not count."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rest = b""
        self._in_text = False
        self._depth = 0
        self._text_length = 0
        self._end = b""

    def check(self, data: bytes) -> None:
        data = self._rest + data
        kept = len(data.rstrip(b"\\")) if data.endswith(b"\\") else len(data)
        data, self._rest = data[:kept], data[kept:]
        pieces = data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        outside = b'"'.join(pieces[self._in_text :: 2])
        self._in_text ^= len(pieces) % 2 == 0
        self._text_length = len(pieces[-1]) + (self._text_length if len(pieces) == 1 else 0) if self._in_text else 0
        if self._text_length > _LONGEST_TEXT:
            raise DataError(self._path, f"a text is longer than {_LONGEST_TEXT} bytes; fetch the file again")
        steps = _STEP[np.frombuffer(outside.translate(None, _BRACKETS), np.uint8)].cumsum(dtype=np.int64)
        if self._depth + steps.max(initial=0) > _DEEPEST:
            raise DataError(self._path, f"more than {_DEEPEST} lists and objects are nested; fetch the file again")
        self._depth += int(steps[-1]) if len(steps) else 0
        digits = self._end + outside.translate(_DIGITS)
        if b"0" * _LONGEST_NUMBER in digits:
            raise DataError(self._path, f"a number has {_LONGEST_NUMBER} digits; whole numbers must fit 64 bits")
        self._end = digits[-_LONGEST_NUMBER:]


class _Guarded:
    """A file that is looked through as it is read, for what the parser does not survive."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._bounds = _Bounds(path)

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._file.read(size)
        except UnicodeError as error:
            raise DataError(self._path, f"its text is damaged UTF-16 ({error}); save it as UTF-8") from error
        self._bounds.check(data)
        return data


class _Progress(io.RawIOBase):
    """A file that moves a bar as it is read."""

    def __init__(self, file: BinaryIO, bar: Bar) -> None:
        self._file = file
        self._bar = bar

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._bar.update(len(data))
        return data


@contextmanager
def guarded(path: Path, desc: str = "") -> Iterator[Any]:
    """Open a file for ijson: UTF-8 with or without a byte order mark, or UTF-16 with one.

    Shows a progress bar for files that take seconds.

    Raises:
        DataError: if it is no file, obviously no JSON, or, also while it is read, no valid JSON.
        FileNotFoundError: if there is none.
    """
    from utils.progress import Bar  # tqdm takes a tenth of the time of --help

    refuse_irregular(path)
    bar = Bar(total=path.stat().st_size, unit="B", unit_scale=True, desc=desc, delay=2, leave=False)
    with path.open("rb") as file, bar:
        start = file.read(100)
        found = foreign_content(start)
        if found:
            raise DataError(path, f"it is {found}, not JSON; fetch it again")
        file.seek(len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0)
        source: Any = _Progress(file, bar)
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            source = codecs.EncodedFile(source, "utf-8", "utf-16")
        try:
            yield _Guarded(path, source)
        except ijson.JSONError as error:
            reason = str(error).splitlines()[0]
            remedy = "save it as UTF-8" if "UTF" in reason else "fetch it again"
            raise DataError(path, f"this is not valid JSON ({reason}); {remedy}") from error


def stream(path: Path, prefix: str) -> Iterator[Any]:
    """Items below `prefix` (ijson's notation: "item" for a list's entries, "images.item" for those of a key).

    Raises:
        DataError: if the file is empty or no valid JSON.
    """
    with guarded(path, f"{path.name} {prefix}") as file:
        yield from ijson.items(file, prefix, use_float=True, buf_size=_BUFFER)


def first_key(path: Path, known: Any) -> str | None:
    """The first of some keys that the object in a file has, without reading further.

    Raises:
        DataError: as `stream`.
    """
    depth = 0
    with guarded(path) as file:
        for event, value in ijson.basic_parse(file, use_float=True, buf_size=_BUFFER):
            depth += {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}.get(event, 0)
            if depth == 1 and event == "map_key" and value in known:
                return str(value)
    return None
