"""Bytes that live tensors take on the meta device, with what CUDA's kernels keep."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.counting import tensors_in

MOVES = (torch.ops.aten.to, torch.ops.aten._to_copy)
KERNEL_ALIGNMENT = 16
"""Keys to which CUDA's memory-efficient attention pads its bias."""


class LiveBytes(TorchDispatchMode):
    """Bytes of all tensors that operations take and give, for as long as they exist; each storage once.

    Args:
        left_out: tensors that do not count, such as the weights.
    """

    def __init__(self, left_out: Iterator[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._bytes: dict[int, int] = {}
        for tensor in left_out:
            self._add(tensor, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation."""
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in MOVES and result.is_meta and not args[0].is_meta:
            self._add(result, 0)  # counting.py's copy of what is on the GPU anyway
        for tensor in tensors_in((args, kwargs or {}, result)):
            self._add(tensor, tensor.untyped_storage().nbytes())
        return result

    def _add(self, tensor: Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._bytes:
            self._bytes[key] = size
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._bytes.pop(key)


def _efficient_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, **kwargs: Any
) -> Tensor:
    """CUDA's memory-efficient attention, taken where there is a mask: it keeps no scores, but the mask as a bias."""
    bias, keys = attn_mask, key.shape[-2]
    if bias is not None:
        if bias.dtype == torch.bool or keys % KERNEL_ALIGNMENT:
            padded = -(-keys // KERNEL_ALIGNMENT) * KERNEL_ALIGNMENT
            bias = query.new_empty(*bias.shape[:-1], padded)[..., :keys]
        bias = bias.expand(*query.shape[:-1], keys)
    keeps = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, bias, keeps, dropout_p)[0]


def _fused_dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout as on CUDA, with a mask of a byte a value."""
    return torch.ops.aten.native_dropout(input, p, training)[0] if training and p else input


@contextmanager
def cuda_kernels() -> Iterator[None]:
    """Within, attention and dropout on the meta device keep what CUDA's kernels keep, in every module."""
    with ExitStack() as stack:
        for name, replacement in (("scaled_dot_product_attention", _efficient_attention), ("dropout", _fused_dropout)):
            original = getattr(F, name)
            for module in list(sys.modules.values()):
                if getattr(module, "__dict__", {}).get(name) is original:
                    stack.enter_context(mock.patch.object(module, name, replacement))
        yield
