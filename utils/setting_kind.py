"""What one setting accepts: conversion from flags and JSON, and the sentence for what is refused."""

import math
import operator
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from utils.shown import shown

_NOUNS = {int: "whole number", float: "number", str: "text", bool: "switch"}
_LIMITS: dict[str, tuple[str, Callable[[Any, float], bool]]] = {
    "minimum": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "maximum": ("at most", operator.le),
    "below": ("below", operator.lt),
}
_MOST_BITS = 64
"""Of a whole number; no setting means more."""


def _is_plain(value: Any) -> bool:
    """Whether a number is finite and not huge, and a text can be a path, and be written: no NUL, no lone surrogate."""
    if isinstance(value, str):
        return "\0" not in value and value.encode("utf-8", "replace").decode() == value
    return value.bit_length() <= _MOST_BITS if isinstance(value, int) else math.isfinite(value)


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
            limits = " and ".join(f"{_LIMITS[name][0]} {limit}" for name, limit in self.bounds.items())
            element = ("" if noun in ("text", "true or false") else "a ") + f"{noun} {limits}".rstrip()
        text = f"a {'list' if from_json else 'comma-separated list'}, each {element}" if self.many else element
        return f"{text}, or {'null' if from_json else 'none'}" if self.optional else text

    def from_text(self, text: str) -> Any:
        """Convert the text of a flag; raises ValueError, without a message, if it is not allowed."""
        if self.optional and text.strip().lower() in ("none", "null"):
            return None
        if self.many:
            parts = text.split(",") if text.strip() else []
            return tuple(self._element_from_text(part.strip()) for part in parts)
        return self._element_from_text(text)

    def from_json(self, value: Any) -> Any:
        """Check a JSON or Python value; raises ValueError, without a message, if it is not allowed."""
        if value is None and self.optional:
            return None
        if not self.many:
            return self._element_from_json(value)
        if not isinstance(value, list | tuple):
            raise ValueError
        return tuple(self._element_from_json(element) for element in value)

    def refusal(self, name: str, value: object, *, from_json: bool = False) -> str:
        """The sentence for a value that is not allowed."""
        return f"{name} is {shown(value)}; it must be {self.describe(from_json=from_json)}."

    def _element_from_text(self, text: str) -> Any:
        value = {"true": True, "false": False}.get(text) if self.base is bool else self.base(text)
        return self._allowed(value)

    def _element_from_json(self, value: Any) -> Any:
        if self.base is float and type(value) is int and value.bit_length() < 1000:
            value = float(value)
        return self._allowed(value)

    def _allowed(self, value: Any) -> Any:
        if type(value) is not self.base or not _is_plain(value) or (self.choices and value not in self.choices):
            raise ValueError
        if not all(_LIMITS[name][1](value, limit) for name, limit in self.bounds.items()):
            raise ValueError
        return value


def kind_of(annotation: Any, *, choices: tuple[Any, ...] = (), bounds: Mapping[str, float]) -> Kind:
    """Read a field's annotation.

    Args:
        annotation: int, float, str, bool, Literal[...], tuple[X, ...] of these, or any of them `| None`.
        choices: the only values allowed; Literal gives its own.
        bounds: limits by name, see `Kind`.

    Raises:
        TypeError: if the annotation is of another form, a mistake in the class that declares it.
    """
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    members = typing.get_args(annotation) if union else [annotation]
    base, *others = [member for member in members if member is not types.NoneType]
    many = typing.get_origin(base) is tuple and typing.get_args(base)[1:] == (Ellipsis,)
    if many:
        base = typing.get_args(base)[0]
    if typing.get_origin(base) is Literal:
        choices = typing.get_args(base)
        base = type(choices[0])
    if others or base not in _NOUNS or any(type(choice) is not base for choice in choices):
        raise TypeError(f"A setting cannot have the type {annotation}.")
    return Kind(base=base, choices=choices, optional=union, many=many, bounds=bounds)
