"""Checks of annotation records: a malformed one is named by file, record and key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from utils.shown import shown

_NAMES = {str: "a text", int: "a whole number", list: "a list", dict: "an object", bool: "true or false"}


_LIMIT = 1 << 63


class MalformedError(ValueError):
    """What is wrong with a record, as a sentence without the file's name."""


def get(record: Mapping[str, Any], key: str, kind: type, name: str) -> Any:
    """`record[key]` of the right type; a numpy number or a float without a fraction counts as a whole number.

    Args:
        record: to read.
        key: wanted.
        kind: `str`, `int`, `list` or `dict`.
        name: of the record, for the message.

    Raises:
        MalformedError: if the key is missing or its value has another type.
    """
    if not isinstance(record, Mapping):
        raise MalformedError(f"{name} is {shown(record)}: it must be an object")
    if key not in record:
        raise MalformedError(f'{name} has no "{key}": give it {_NAMES[kind]}')
    value = record[key]
    if kind is int and whole(value) is not None:
        return whole(value)
    if kind is str and isinstance(value, str) and not _is_unicode(value):
        raise MalformedError(f'{name}: "{key}" holds half of a surrogate pair ({value!a:.60}): write it again')
    if kind is not int and isinstance(value, kind):
        return value
    raise MalformedError(f'{name}: "{key}" is {shown(value)}: it must be {_NAMES[kind]}')


def whole(value: Any) -> int | None:
    """A value as an integer of 64 bits, or None if it is none."""
    if isinstance(value, bool | np.bool_):
        return None
    is_whole = isinstance(value, int | np.integer) or (
        isinstance(value, float | np.floating) and float(value).is_integer()
    )
    return int(value) if is_whole and -_LIMIT <= value < _LIMIT else None


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def text(record: Mapping[str, Any], key: str, name: str) -> str:
    """`record[key]`, a text with something in it, without blanks around it.

    Raises:
        MalformedError: if it is missing, no text or empty.
    """
    value = get(record, key, str, name).strip()
    if not value:
        raise MalformedError(f'{name}: "{key}" is empty: give it some words')
    return str(value)


def size(record: Mapping[str, Any], name: str) -> tuple[int, int]:
    """(height, width) of a record's image.

    Raises:
        MalformedError: if they are missing or not positive.
    """
    height, width = get(record, "height", int, name), get(record, "width", int, name)
    if height < 1 or width < 1:
        raise MalformedError(f"{name}: its image is {height} x {width}: both sides must be at least 1")
    return height, width
