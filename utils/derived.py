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

    def get(self, make: Callable[..., Tensor], *weights: Tensor) -> Tensor:
        """`make(*weights)`, without gradient where it is kept."""
        if torch.compiler.is_compiling() or any(weight.requires_grad or weight.is_inference() for weight in weights):
            return make(*weights)
        key = [(weight.data_ptr(), weight._version, weight.dtype, weight.device, weight.shape) for weight in weights]
        made = self._made
        if made is None or made[0] != key:
            with torch.inference_mode(False), torch.no_grad():  # a tensor of inference mode could not serve training
                made = self._made = (key, make(*weights))
        return made[1]
