"""Strategies that damage files as the world does: cut, overwritten, of another kind, with odd values."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 2**31, -(2**63), 2**64, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "",
    " ", "0", "nan", "true", "\ud800", "\0", "../../etc/passwd", "/etc/passwd", "images\\a.jpg", "e\u0301", "x" * 5000,
    "<SEG>", [], {}, [[]], [None], [0, 0], [[0, 0], [1e9, 1e9]], [1e308] * 6, {"size": [1, 1], "counts": ""},
    {"a": {"b": {}}}, [[[[[[[[]]]]]]]],
)  # fmt: skip
"""Values that stand where another was."""

FOREIGN: tuple[bytes, ...] = (
    b"", b"\0" * 200, b"<!DOCTYPE html><html>Not found</html>", b"version https://git-lfs.github.com/spec/v1\noid",
    b"\x1f\x8b\x08\0\0\0\0\0", b"PK\x03\x04\0\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"\x80\x04N.", b"null",
    b"[]", b"{}", b"[" * 3000, b'{"a":' * 3000, b"1" * 6000, b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b'"\\ud800"', b"NaN",
    "\u4f60\u597d".encode("gbk"),
)  # fmt: skip
"""What lies in the place of a file."""

PIECES: tuple[bytes, ...] = (
    b"\0", b"\xff", b'"', b"{", b"}", b"[", b"]", b",", b"-", b"NaN", b"1e999", b"9" * 5000, b"null",
    b"\\ud800", b"<html>",
)  # fmt: skip

NOT_FILES = ("missing", "folder", "pipe", "link to itself", "dangling link")


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """A file's content with one to three things wrong, or another file's."""
    if draw(st.integers(0, 7)) == 0:
        return draw(st.sampled_from(FOREIGN))
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(("cut", "flip", "insert", "drop", "repeat")))
        place = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from((1, 2, 8, 64, 1000)))
        if kind == "cut":
            content = content[:place]
        elif kind == "flip" and place < len(content):
            flipped = content[place] ^ (1 << draw(st.integers(0, 7)))
            content = content[:place] + bytes([flipped]) + content[place + 1 :]
        elif kind == "insert":
            content = content[:place] + draw(st.sampled_from(PIECES)) + content[place:]
        elif kind == "drop":
            content = content[:place] + content[place + length :]
        else:
            content = content[:place] + content[place : place + length] * 3 + content[place + length :]
    return content


@st.composite
def damaged_value(draw: st.DrawFn, value: Any) -> Any:
    """Plain data with one to three of its values replaced, removed, doubled or renamed."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        holder, key = _place(draw, value)
        if holder is None:
            return draw(st.sampled_from(ODD))
        kind = draw(st.sampled_from(("odd", "odd", "odd", "remove", "double", "rename")))
        if kind == "remove":
            del holder[key]
        elif kind == "double" and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif kind == "rename" and isinstance(holder, dict):
            holder[f"{key}x"] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
    return value


def _place(draw: st.DrawFn, value: Any) -> tuple[Any, Any]:
    """A container and a key in it, at a drawn depth."""
    holder, key = None, None
    while isinstance(value, list | dict) and value:
        keys = range(len(value)) if isinstance(value, list) else list(value)
        holder, key = value, draw(st.sampled_from(keys))
        value = holder[key]
        if draw(st.integers(0, 3)) == 0:
            break
    return holder, key


@st.composite
def damaged_file(draw: st.DrawFn, path: Path) -> bytes | str:
    """What takes a file's place: bytes, or one of `NOT_FILES`."""
    if draw(st.integers(0, 15)) == 0:
        return draw(st.sampled_from(NOT_FILES))
    content = path.read_bytes()
    plain = _plain(path, content)
    if plain is not None and draw(st.booleans()):
        value = draw(damaged_value(plain))
        return pickle.dumps(value) if path.suffix == ".p" else json.dumps(value).encode()
    return draw(damaged_bytes(content))


def _plain(path: Path, content: bytes) -> Any:
    if path.suffix == ".json":
        return json.loads(content)
    return pickle.loads(content) if path.suffix == ".p" else None  # a file of our own


@contextmanager
def replaced(path: Path, by: bytes | str) -> Iterator[None]:
    """`path` with something in its place, and as it was behind the block."""
    aside = path.with_name(f"{path.name}.aside")
    os.rename(path, aside)
    try:
        _put(path, by)
        yield
    finally:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        os.rename(aside, path)


def _put(path: Path, by: bytes | str) -> None:
    if isinstance(by, bytes):
        path.write_bytes(by)
    elif by == "folder":
        path.mkdir()
    elif by == "pipe":
        os.mkfifo(path)
    elif by == "link to itself":
        path.symlink_to(path)
    elif by == "dangling link":
        path.symlink_to(path.with_name("nowhere"))
