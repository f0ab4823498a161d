"""What one setting accepts: conversion from flags and JSON, and the sentence for what is refused."""

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from utils.shown import shown

_NOUNS = {int: "whole number", float: "number", str: "text", bool: "switch"}
_BOUND_WORDS = {"minimum": "at least", "above": "above", "maximum": "at most", "below": "below"}


_MOST_BITS = 64
"""Of a whole number; no setting means more."""


def _is_plain(text: str) -> bool:
    """Whether a text can be a path, and be written: no NUL, and no half of a surrogate pair."""
    return "\0" not in text and text.encode("utf-8", "replace").decode() == text


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """The values one field accepts."""

    base: type
    """int, float, str or bool; the type of each element where `many`."""
    choices: tuple[Any, ...] = ()
    """The only values allowed; empty allows all."""
    optional: bool = False
    """Whether None (`none` on the command line, null in JSON) is allowed."""
    many: bool = False
    """Whether the value is a tuple, comma separated on the command line."""
    bounds: Mapping[str, float]
    """Limits by name: minimum, maximum (inclusive), above, below (exclusive)."""

    @property
    def is_switch(self) -> bool:
        """Whether the flag takes no value (`--x`, `--no_x`)."""
        return self.base is bool and not self.many and not self.optional

    def describe(self, *, from_json: bool = False) -> str:
        """Name the allowed values, e.g. "a whole number at least 1, or none"."""
        if self.choices:
            element = "one of " + ", ".join(str(choice) for choice in self.choices)
        else:
            noun = "true or false" if self.base is bool and from_json else _NOUNS[self.base]
            limits = " and ".join(f"{_BOUND_WORDS[name]} {limit}" for name, limit in self.bounds.items())
            element = ("" if noun in ("text", "true or false") else "a ") + f"{noun} {limits}".rstrip()
        text = f"a {'list' if from_json else 'comma-separated list'}, each {element}" if self.many else element
        return f"{text}, or {'null' if from_json else 'none'}" if self.optional else text

    def from_text(self, text: str) -> Any:
        """Convert the text of a flag; raises ValueError, without a message, if it is not allowed."""
        if self.optional and text.strip().lower() in ("none", "null"):
            return None
        if self.many:
            parts = text.split(",") if text.strip() else []
            return tuple(self._allowed(self._element_from_text(part.strip())) for part in parts)
        return self._allowed(self._element_from_text(text))

    def from_json(self, value: Any) -> Any:
        """Check a JSON or Python value; raises ValueError, without a message, if it is not allowed."""
        if value is None and self.optional:
            return None
        if self.many:
            if not isinstance(value, list | tuple):
                raise ValueError
            return tuple(self._allowed(self._element_from_json(element)) for element in value)
        return self._allowed(self._element_from_json(value))

    def refusal(self, name: str, value: object, *, from_json: bool = False) -> str:
        """The sentence for a value that is not allowed."""
        return f"{name} is {shown(value)}; it must be {self.describe(from_json=from_json)}."

    def _element_from_text(self, text: str) -> Any:
        if self.base is bool:
            return text == "true" if text in ("true", "false") else self._refuse()
        return self.base(text)

    def _element_from_json(self, value: Any) -> Any:
        if self.base is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value) if value.bit_length() < 1000 else self._refuse()
        return value if type(value) is self.base else self._refuse()

    def _allowed(self, value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            self._refuse()
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            self._refuse()
        if isinstance(value, str) and not _is_plain(value):
            self._refuse()
        if self.choices and value not in self.choices:
            self._refuse()
        inside = {
            "minimum": lambda limit: value >= limit,
            "above": lambda limit: value > limit,
            "maximum": lambda limit: value <= limit,
            "below": lambda limit: value < limit,
        }
        if not all(inside[name](limit) for name, limit in self.bounds.items()):
            self._refuse()
        return value

    @staticmethod
    def _refuse() -> typing.NoReturn:
        raise ValueError


def kind_of(annotation: Any, *, choices: tuple[Any, ...] = (), bounds: Mapping[str, float] | None = None) -> Kind:
    """Read a field's annotation.

    Args:
        annotation: int, float, str, bool, Literal[...], tuple[X, ...] of these, or any of them `| None`.
        choices: the only values allowed; Literal gives its own.
        bounds: limits by name, see `Kind`.

    Raises:
        TypeError: if the annotation is of another form, a mistake in the class that declares it.
    """
    bounds = bounds or {}
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType) and len(inner) == 2 and types.NoneType in inner:
        (present,) = (argument for argument in inner if argument is not types.NoneType)
        kind = kind_of(present, choices=choices, bounds=bounds)
        return Kind(base=kind.base, choices=kind.choices, optional=True, many=kind.many, bounds=bounds)
    if origin is tuple and len(inner) == 2 and inner[1] is Ellipsis:
        kind = kind_of(inner[0], choices=choices, bounds=bounds)
        if not kind.many and not kind.optional:
            return Kind(base=kind.base, choices=kind.choices, many=True, bounds=bounds)
    if origin is Literal and len({type(choice) for choice in inner}) == 1:
        return Kind(base=type(inner[0]), choices=inner, bounds=bounds)
    if annotation in _NOUNS:
        return Kind(base=annotation, choices=choices, bounds=bounds)
    raise TypeError(f"A setting cannot have the type {annotation}.")
