"""Progress bars that become a few lines where nobody watches: in a log file, a batch job, a pipe."""

from __future__ import annotations

import time
from typing import Any

from tqdm import tqdm

FIRST_GAP, LARGEST_GAP = 10.0, 600.0
"""Seconds before the first line of a log, and the most to which the distance doubles line by line."""


class Bar(tqdm):
    """tqdm; where its stream is no terminal, whole lines at ever larger distances, and one at the end."""

    disable: bool

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._gap, self._due, self._lines = FIRST_GAP, time.monotonic() + FIRST_GAP, 0
        super().__init__(*arguments, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draw the bar, or add a line if one is due; tqdm calls this for every change that it would show."""
        if self._on_terminal():
            return bool(super().display(msg, pos))
        if time.monotonic() >= self._due:
            self._line()
        return True

    def clear(self, nolock: bool = False) -> None:
        """Wipe the bar; lines stay."""
        if self._on_terminal():
            super().clear(nolock)

    def close(self) -> None:
        """End the bar; a log gets its last state, if the bar is to stay or has lines there."""
        if self.disable or self._on_terminal():
            super().close()
            return
        self.disable = True
        self._decr_instances(self)
        if self._lines or self.leave:
            self._line()

    def _on_terminal(self) -> bool:
        return bool(self.fp.isatty())

    def _line(self) -> None:
        self.fp.write(f"{self}\n")
        self.fp.flush()
        self._lines += 1
        self._gap = min(2 * self._gap, LARGEST_GAP)
        self._due = time.monotonic() + self._gap
