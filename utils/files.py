"""Files that are either whole or absent: atomic writing of bytes, text and JSON; careful reading of JSON."""

import dataclasses
import hashlib
import json
import math
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import DataError, OutputExistsError, SettingsError
from utils.json_text import decode_text, parse_json
from utils.shown import shown

Fail = Callable[[Path, str], Exception]
"""Makes the error of a file that cannot be used from its path and what is wrong, the end of "PATH: reason"."""

_IRREGULAR = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file so that a reader, or a kill at any moment, never meets half of it."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file so that a reader, or a kill at any moment, never meets half of it.

    The content goes to a temporary file beside `path` and takes the name in one step.

    Args:
        path: the file.
        content: all of it.
        durable: force it to the disk first, so that the same holds when the machine itself stops.
    """
    path = Path(path)
    # Not the process id: processes of several machines may write into one folder.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        _sync_folder(path.parent)


def write_json(path: str | Path, obj: object) -> None:
    """Write `obj` as indented JSON, atomically (see `write_text` and `to_json`)."""
    write_text(path, json.dumps(to_json(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def to_json(obj: object) -> Any:
    """Convert to what strict JSON can hold.

    Paths become strings, tuples lists, dataclasses dictionaries and numpy values Python ones. NaN and the
    infinities, which JSON lacks, become the strings "nan", "inf" and "-inf", which `float` reads back.

    Raises:
        TypeError: if something inside has no JSON counterpart.
    """
    if isinstance(obj, np.generic | np.ndarray):
        obj = obj.tolist()
    if obj is None or isinstance(obj, bool | int | str):
        return obj
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else str(obj)
    if isinstance(obj, Path):
        return str(obj)
    if isinstance(obj, Mapping):
        return {str(key): to_json(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [to_json(value) for value in obj]
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {field.name: to_json(getattr(obj, field.name)) for field in dataclasses.fields(obj)}
    raise TypeError(f"A value of type {type(obj).__name__} cannot be written as JSON: {obj!r}.")


def refuse_irregular(path: str | Path, *, fail: Fail = DataError) -> None:
    """Refuse what only looks like a file, before it is opened: opening a named pipe waits for ever.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        Exception: from `fail`, for a folder, pipe, socket or device, or if it cannot be looked at.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise fail(path, f"it cannot be opened ({getattr(error, 'strerror', error)})") from error
    found = next((words for is_kind, words in _IRREGULAR if is_kind(mode)), None)
    if found:
        raise fail(path, f"it is {found}, but must be a file")


def read_bytes(path: str | Path, *, fail: Fail = DataError) -> bytes:
    """All bytes of a regular file.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        Exception: from `fail`, if it is no regular file or cannot be read.
    """
    path = Path(path)
    refuse_irregular(path, fail=fail)
    try:
        return path.read_bytes()
    except OSError as error:
        raise fail(path, f"it cannot be read ({error.strerror})") from error


def read_json(
    path: str | Path,
    *,
    fail: Fail = DataError,
    kind: type | None = None,
    decode: Callable[[bytes], str] = decode_text,
) -> Any:
    """The value of a JSON file, which may hold anything: see `utils.json_text.parse_json` for what is accepted.

    Args:
        path: of the file.
        fail: makes the error.
        kind: `dict` or `list`, if the value must be one.
        decode: bytes to text, UTF-8 or marked UTF-16 by default.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        Exception: from `fail`, if it is no regular file, cannot be read, or is not acceptable JSON.
    """
    path = Path(path)
    data = read_bytes(path, fail=fail)
    try:
        value = parse_json(data, decode)
    except ValueError as error:
        raise fail(path, str(error)) from error
    if kind is not None and not isinstance(value, kind):
        raise fail(path, f"it must hold {'an object' if kind is dict else 'a list'} but holds {shown(value)}")
    return value


def _sync_folder(folder: Path) -> None:
    """Force the new name itself to the disk, where the file system allows it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def make_folder(folder: str | Path, flag: str) -> Path:
    """Make a folder of a flag, if it is not there, and see that it can be written.

    Raises:
        SettingsError: if it is a file or cannot be written.
    """
    folder = Path(folder)
    probe = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        if folder.is_file():
            raise SettingsError(f"{flag} {folder} is a file; give a folder, which is made if it is not there")
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SettingsError(
            f"{flag} {folder} cannot be written ({error.strerror}); give a folder that can, or leave it out"
        ) from None
    return folder


def share_files(folder: Path) -> None:
    """Give the files of a folder the permissions of the umask; some libraries write them for the user alone."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o666 & ~umask)


def file_digest(path: Path) -> str:
    """Digest of a file's content, read in parts."""
    total = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            total.update(chunk)
    return total.hexdigest()


def refuse_existing(path: Path) -> None:
    """Refuse an output folder that holds something.

    Raises:
        OutputExistsError: if `path` is a file or a folder that is not empty.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise OutputExistsError(f"{path} exists and is not empty; give a new folder, nothing is overwritten")


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its name at the end, so that `path` is whole or absent.

    Raises:
        OutputExistsError: if `path` exists and is not an empty folder.
    """
    path = Path(path)
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sync_folder(path.parent)
