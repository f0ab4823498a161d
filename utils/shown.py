"""Values in messages, short whatever they are."""

from __future__ import annotations

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict, _SHORT.maxset = 2, 4, 4, 3, 3
_SHORT.maxstring = _SHORT.maxother = 50


def shown(value: object, longest: int = 60) -> str:
    """A value as a message shows it: at most `longest` characters, in time that does not grow with its size.

    `repr` of lists that hold each other doubles with every level, and that of a very large number raises.
    """
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {value.bit_length()} bits"
    try:
        return _SHORT.repr(value)[:longest]
    except ValueError:
        return type(value).__name__
