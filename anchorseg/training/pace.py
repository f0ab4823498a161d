"""Pace of a run: when to save, when it will end, its speed, and the most memory it has held."""

from __future__ import annotations

import resource
import time
from collections import defaultdict

import torch


def peak_memory_gb() -> float:
    """Most memory, in 10^9 bytes, that this rank has held: of its GPU as torch allocates it, or of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


class Clock:
    """When to save, and when the run will end."""

    def __init__(self, save_minutes: float, step: int) -> None:
        self._save_seconds = 60 * save_minutes
        self._began = self._saved = time.monotonic()
        self._first = step
        self._estimated = False

    def is_due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved >= self._save_seconds

    def saved(self) -> None:
        """Note that a checkpoint was written."""
        self._saved = time.monotonic()

    def estimate(self, step: int, total: int) -> str | None:
        """Once, after the first minute: how long the rest takes."""
        seconds = time.monotonic() - self._began
        if self._estimated or seconds < 60:
            return None
        self._estimated = True
        hours = seconds / (step - self._first) * (total - step) / 3600
        return f"{total - step} steps to go, about {hours:.1f} hours without validations"


class Window:
    """Means and speed of the steps since the last logged line."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[float]] = defaultdict(list)
        self._timed = 0
        self._began = time.perf_counter()

    def add(self, values: dict[str, float]) -> None:
        """Count a step, with its values by name."""
        for name, value in values.items():
            self._values[name].append(value)
        self._timed += 1

    def restart_clock(self) -> None:
        """Leave validation out of the speed."""
        self._timed, self._began = 0, time.perf_counter()

    def means(self) -> dict[str, float]:
        """Mean of each value."""
        return {name: sum(values) / len(values) for name, values in self._values.items()}

    def steps_per_second(self) -> float:
        """Speed since the clock was started."""
        return self._timed / (time.perf_counter() - self._began)
