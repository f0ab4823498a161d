"""Signals that ask a program to stop, as a wish that it fulfils where it can."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What kill and launchers send, Ctrl-C, and what SLURM sends before the time is over (--signal=USR1@300)."""


class StopSignals:
    """Within it, the first of `SIGNALS` is remembered instead of ending the process; a second Ctrl-C ends it.

    Attributes:
        received: number of the first signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number


def exit_status(number: int) -> int:
    """Exit status of a program that a signal has stopped, as shells and launchers have it."""
    return 128 + number
