"""The largest picture that is decoded."""

from __future__ import annotations

from pathlib import Path

from utils.errors import DataError

MOST_PIXELS = 178_956_970
"""Pixels of the largest picture, Pillow's own limit: a small file may promise any number of them."""


def refuse_huge(height: int, width: int, path: str | Path) -> None:
    """Raise `DataError` for a size that no picture has, before memory is taken for it."""
    if height < 1 or width < 1 or height * width > MOST_PIXELS:
        raise DataError(
            path,
            f"it is {height} x {width} pixels, but pictures have 1 to {MOST_PIXELS}; make it smaller, or correct it",
        )
