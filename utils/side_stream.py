"""Work on a GPU beside other work."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache
def _stream(device: torch.device, purpose: str) -> torch.cuda.Stream:
    """One a purpose: the allocator keeps memory for each stream that was ever used."""
    return torch.cuda.Stream(device)


def transfer(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A tensor on a device, floating-point values in a dtype; to a GPU it goes beside what the GPU is doing.

    The host does not wait where the tensor's memory is pinned.
    """
    if device.type != "cuda" or tensor.is_cuda:
        return _as_type(tensor.to(device), dtype)
    current, copying = torch.cuda.current_stream(device), _stream(device, "copies")
    with torch.cuda.stream(copying):
        there = _as_type(tensor.to(device, non_blocking=True), dtype)  # in this order, for a GPU converts faster
    current.wait_stream(copying)
    there.record_stream(current)
    return there


def _as_type(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


class OnSideStream:
    """A tensor that is computed beside what the caller does next: on a second CUDA stream; elsewhere at once.

    Args:
        call: makes it of tensors that live until `result`; under the caller's grad mode.
        device: of the tensor.
    """

    def __init__(self, call: Callable[[], Tensor], device: torch.device) -> None:
        self._stream = _stream(device, "encoder") if device.type == "cuda" else None
        if self._stream is None:
            self._made = call()
            return
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            self._made = call()

    def result(self) -> Tensor:
        """The tensor; what the caller does next waits for it, on the GPU alone."""
        if self._stream is not None:
            current = torch.cuda.current_stream(self._made.device)
            current.wait_stream(self._stream)
            self._made.record_stream(current)
        return self._made
