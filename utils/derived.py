"""Tensors that follow from frozen weights alone, made once and not at every call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Derived:
    """What is made of some weights, again whenever they were moved, converted or written to.

    Nothing is kept while the weights train, and nothing where torch does not count writes. Threads may share it: two
    that come first at the same time both make the same.
    """

    def __init__(self) -> None:
        self._made: tuple[object, Tensor] | None = None

    def get(self, weight: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        """`make(weight)`, without gradient where it is kept."""
        if weight.requires_grad or weight.is_inference() or torch.compiler.is_compiling():
            return make(weight)
        key = (weight.data_ptr(), weight._version, weight.dtype, weight.device, weight.shape)
        made = self._made
        if made is None or made[0] != key:
            with torch.inference_mode(False), torch.no_grad():  # a tensor of inference mode could not serve training
                made = self._made = (key, make(weight))
        return made[1]
