"""Seconds and memory of several ways to do the same, taken in turn; and how fast the device multiplies at best."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Cost:
    """Medians of a call, and the most bytes that it held.

    Attributes:
        seconds: by the clock.
        cpu_seconds: of the processor, which other programs hardly change.
        peak_bytes: of the GPU, or of the whole process.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _seconds(call: Callable[[], object], device: str) -> tuple[float, float]:
    """By the clock and of the processor."""
    gc.collect()
    _synchronise(device)
    began, cpu_began = time.perf_counter(), time.process_time()
    call()
    _synchronise(device)
    return time.perf_counter() - began, time.process_time() - cpu_began


def _peak_bytes(call: Callable[[], object], device: str) -> int:
    """In a call of its own, for memory that was given back makes a call slow."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the peak so far
    call()
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024


def in_turn(ways: Mapping[str, Callable[[], object]], *, device: str, repeats: int) -> dict[str, Cost]:
    """Cost of each way; all are called once uncounted, then one after the other, `repeats` times, and once for memory.

    Args:
        ways: by name.
        device: `cpu` or `cuda`.
        repeats: at least 1.
    """
    for call in ways.values():
        call()
    found = [{name: _seconds(call, device) for name, call in ways.items()} for _ in range(repeats)]
    return {
        name: Cost(
            statistics.median(times[name][0] for times in found),
            statistics.median(times[name][1] for times in found),
            _peak_bytes(call, device),
        )
        for name, call in ways.items()
    }


@contextmanager
def growth_in(
    modules: Sequence[tuple[str, nn.Module]], reading: Callable[[], Number], parts: dict[str, Number]
) -> Iterator[None]:
    """Add to `parts` by how much a reading grows in forward passes of named modules; none may be within another."""
    began: list[Number] = []

    def leave(name: str, *_: object) -> None:
        growth = reading() - began.pop()
        parts[name] = parts[name] + growth if name in parts else growth

    handles = []
    for name, module in modules:
        handles.append(module.register_forward_pre_hook(lambda *_: began.append(reading())))
        handles.append(module.register_forward_hook(partial(leave, name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def by_part(call: Callable[[], object], modules: Sequence[tuple[str, nn.Module]], device: str) -> dict[str, float]:
    """Seconds of a call in named modules, none of which is within another, and in all the rest.

    The device is waited for around each, so that nothing runs beside anything else and the sum is more than the call
    takes by itself. The call is made once before, uncounted.
    """

    def clock() -> float:
        _synchronise(device)
        return time.perf_counter()

    call()
    parts: dict[str, float] = {}
    with growth_in(modules, clock, parts):
        total, _ = _seconds(call, device)
    return {**parts, "rest": total - sum(parts.values())}


def matmul_peak(device: str, dtype: torch.dtype) -> float:
    """Operations a second of the best of ten large matrix products."""
    side = 8192 if device == "cuda" else 2048
    left, right = torch.randn(2, side, side, device=device).to(dtype)
    seconds = min(_seconds(lambda: left @ right, device)[0] for _ in range(10))
    return 2 * side**3 / seconds


def describe(name: str, costs: Mapping[str, Cost], *, images: int) -> str:
    """One line a way, with its share of the first one's seconds."""
    first = next(iter(costs.values()))
    lines = [f"{name:<40}{'seconds':>10}{'CPU s':>10}{'images/s':>10}{'peak GiB':>10}{'share':>8}"]
    lines += [
        f"{way:<40}{cost.seconds:>10.3f}{cost.cpu_seconds:>10.3f}{images / cost.seconds:>10.2f}"
        f"{cost.peak_bytes / 2**30:>10.2f}{cost.seconds / first.seconds:>8.3f}"
        for way, cost in costs.items()
    ]
    return "\n".join(lines)


def as_json(costs: Mapping[str, Cost]) -> dict[str, dict[str, float]]:
    """Costs as plain dictionaries."""
    return {name: asdict(cost) for name, cost in costs.items()}
