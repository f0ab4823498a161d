"""Work on a GPU beside other work."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache
def _second_stream(device: torch.device) -> torch.cuda.Stream:
    """One a device: the allocator keeps memory for each stream that was ever used."""
    return torch.cuda.Stream(device)


class OnSideStream:
    """A tensor that is computed beside what the caller does next: on a second CUDA stream; elsewhere at once.

    Args:
        call: makes it of tensors that live until `result`; under the caller's grad mode.
        device: of the tensor.
    """

    def __init__(self, call: Callable[[], Tensor], device: torch.device) -> None:
        self._stream = _second_stream(device) if device.type == "cuda" else None
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
