"""CUDA graphs: a sequence of kernels that the host launches at once, over tensors that stay where they are.

A function that is captured must not read a tensor's value on the host, and what its shapes depend on must not change.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Recording(Generic[T]):
    """A recorded function: `replay` runs it again on what its tensors hold then, and writes to the same `outputs`."""

    replay: Callable[[], object]
    outputs: T


class Recorder(Protocol):
    """Runs a function once or more, and records it."""

    def __call__(self, function: Callable[[], T]) -> Recording[T]:
        """Record a function without arguments."""


class CudaRecorder:
    """Records CUDA graphs that share memory: copy what one has computed before another is replayed."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], T]) -> Recording[T]:
        """Run the function once, so that libraries and constants are set up, then capture it."""
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            function()
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads may allocate meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = function()
        return Recording(graph.replay, outputs)


def shapes_of(tensors: Iterable[Tensor]) -> Iterator[Hashable]:
    """What a recording depends on."""
    return ((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors)


class CapturedCall:
    """A function of tensors to tensors, recorded for each combination of shapes that comes more than once.

    Threads may share it, if they launch on one stream.

    Args:
        function: of tensors, and of constants by name; its results belong to the caller.
        record: makes recordings.
        keep: most combinations of shapes that are kept; the one unused for longest goes.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], record: Recorder, *, keep: int = 8) -> None:
        self._function, self._record = function, record
        self._kept = Kept[Hashable, "_Captured"](keep)
        self._seen: set[Hashable] = set()
        self._lock = Lock()

    def __call__(self, *inputs: Tensor, **constants: Hashable) -> tuple[Tensor, ...]:
        """The function's results."""
        function = partial(self._function, **constants)
        key = (*shapes_of(inputs), *sorted(constants.items()))
        if key not in self._seen:  # shapes that never come again are not worth a recording
            self._seen.add(key)
            return function(*inputs)
        with self._lock:
            return self._kept.get(key, lambda: _Captured(function, inputs, self._record))(inputs)


class _Captured:
    def __init__(self, function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...], record: Recorder):
        self._inputs = tuple(tensor.clone() for tensor in inputs)
        self._recording = record(lambda: function(*self._inputs))

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._recording.replay()
        return tuple(output.clone() for output in self._recording.outputs)


K = TypeVar("K", bound=Hashable)


class Kept(Generic[K, T]):
    """The most recently used values, made when they are first asked for."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[K, T] = OrderedDict()

    def get(self, key: K, make: Callable[[], T]) -> T:
        """The value of a key."""
        if key not in self._values:
            while len(self._values) >= self._most:  # before another takes memory
                self._values.popitem(last=False)
            self._values[key] = make()
        self._values.move_to_end(key)
        return self._values[key]

    def values(self) -> list[T]:
        """All that are kept."""
        return list(self._values.values())
