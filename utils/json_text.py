"""JSON from bytes that may hold anything: strict, and bounded in time and memory whatever they hold."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable
from typing import Any

_DEEPEST = 100
"""Most nested lists and objects; what walks over a value afterwards may then recurse."""

_LONGEST_NUMBER = 1000
"""Most characters of a number; converting longer ones takes time that grows with their square."""

_INTEGERS = range(-(1 << 63), 1 << 64)
"""Whole numbers that fit 64 bits, signed or not."""

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_STARTS = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer instead of the file (git lfs pull fetches it)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x04", "a pickle"),
)
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
    (codecs.BOM_UTF8, "UTF-8-SIG"),
)


def foreign_content(start: bytes) -> str | None:
    """What a file that should be something else holds, by its first bytes, as words; None if it is not known.

    Args:
        start: all bytes, or the first 100 and more.
    """
    if not start.strip():
        return "an empty file"
    if not start.strip(b"\0"):
        return "a file of zero bytes alone, as an interrupted copy leaves it"
    page = start.removeprefix(codecs.BOM_UTF8).lstrip()[:20].lower()
    if page.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<svg")):
        return "a web page or XML"
    return next((words for magic, words in _STARTS if start.startswith(magic)), None)


def decode_text(data: bytes) -> str:
    """Text in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Raises:
        ValueError: for any other encoding, named as far as it can be known.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "UTF-8")
    if encoding == "UTF-32":
        raise ValueError("its text is UTF-32; save it as UTF-8")
    if encoding == "UTF-8" and b"\0" in data[:2]:
        raise ValueError("its text seems to be UTF-16 or UTF-32 without a byte order mark; save it as UTF-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "UTF-16":
            raise ValueError(f"its text starts as UTF-16 but breaks off or is damaged ({error.reason})") from error
        raise ValueError(
            f"its text is not UTF-8 (byte 0x{data[error.start]:02x} at position {error.start}) but perhaps of an older "
            "encoding such as GBK, cp1251 or cp1252, which cannot be told apart; save it as UTF-8"
        ) from error


def parse_json(data: bytes, decode: Callable[[bytes], str] = decode_text) -> Any:
    """The value of a JSON text.

    Args:
        data: the text's bytes.
        decode: bytes to text; raises `ValueError` with a sentence for an encoding that it does not accept.

    Returns:
        Plain values. Whole numbers fit 64 bits, signed or not, other numbers are finite, texts can be encoded as UTF-8,
        and at most 100 lists and objects are nested.

    Raises:
        ValueError: with a sentence that says what the bytes are, or what a value may not be.
    """
    found = foreign_content(data)
    if found:
        raise ValueError(f"it is {found}, not JSON; fetch it again")
    text = decode(data)
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_real, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON ({error}); write or fetch it again") from error
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    _refuse_depth(value)
    if _SURROGATE_ESCAPE.search(text):
        _refuse_surrogates(value)
    return value


_TOO_DEEP = f"more than {_DEEPEST} lists and objects are nested in it; write or fetch it again"


def _whole(digits: str) -> int:
    value = int(digits) if len(digits) <= 20 else _INTEGERS.stop
    if value not in _INTEGERS:
        raise ValueError(f"the number {digits:.24}... has {len(digits)} characters; whole numbers must fit 64 bits")
    return value


def _real(digits: str) -> float:
    value = float(digits) if len(digits) <= _LONGEST_NUMBER else math.inf
    if not math.isfinite(value):
        raise ValueError(f"the number {digits:.24} is too large or too long; numbers must be finite")
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"it holds {name}, which JSON does not allow; numbers must be finite")


def _refuse_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST + 1):
        nested = [item for item in level if isinstance(item, list | dict)]
        if not nested:
            return
        level = [part for item in nested for part in (item.values() if isinstance(item, dict) else item)]
    raise ValueError(_TOO_DEEP)


def _refuse_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        raise ValueError(f"a text holds \\u{code:04x}, half of a surrogate pair; write it again") from error
