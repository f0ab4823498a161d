"""Pickle files of the REFER family, read without running anything that they hold."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from utils.errors import DataError
from utils.files import refuse_irregular

# What numpy puts around a scalar; `array`, whose pickles build any object, is not among them.
_ALLOWED = {
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _RefusedError(Exception):
    """A pickle names something that is not plain data."""


class _PlainUnpickler(pickle.Unpickler):
    """Admits containers, numbers, strings (which need no global at all) and numpy scalars."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise _RefusedError(f"{module}.{name}")


def read_pickle(path: Path) -> Any:
    """The plain data of a pickle: lists, dicts, tuples, numbers, strings and numpy scalars.

    Raises:
        DataError: if the file holds anything else, is empty, damaged, or missing.
    """
    try:
        refuse_irregular(path)
    except FileNotFoundError as error:
        raise DataError(path, "the file does not exist") from error
    if not path.stat().st_size:
        raise DataError(path, "the file is empty; fetch it again")
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="utf-8").load()
    except _RefusedError as error:
        raise DataError(
            path,
            f"this pickle holds {error} and was refused; only lists, dicts, numbers, strings and numpy scalars are "
            "read, because loading anything else can run code. Fetch the file again from its publisher",
        ) from error
    except Exception as error:  # damaged bytes can raise nearly anything, a global's own errors included
        reason = f"{type(error).__name__}: {error!s:.200}"
        raise DataError(path, f"this pickle is damaged ({reason}); fetch it again") from error
