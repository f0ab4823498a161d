"""Keys and values in tensors of fixed size, which a CUDA graph needs: none moves or grows.

Letters: B rows, S positions of the cache, C new positions, h heads, d width of a head.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache


class FixedCache(Cache):
    """A cache that writes where it is told and always returns all S positions; the mask says which are seen.

    Args:
        cache: any that is filled, for its layers' shapes, dtypes and devices.
        capacity: S.

    Attributes:
        places: (B, C) where the next C keys and values go, different within a row.
    """

    places: Tensor

    def __init__(self, cache: Cache, capacity: int) -> None:
        super().__init__(layers=[])
        self._keys = [_zeros(layer.keys, capacity) for layer in cache.layers]
        self._values = [_zeros(layer.values, capacity) for layer in cache.layers]

    def fill(self, cache: Cache) -> None:
        """Copy the keys and values (B, h, s, d) of another cache to the first s positions."""
        for keys, values, layer in zip(self._keys, self._values, cache.layers, strict=True):
            keys[:, :, : layer.keys.shape[2]].copy_(layer.keys)
            values[:, :, : layer.values.shape[2]].copy_(layer.values)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write (B, h, C, d) keys and values of a layer at `places`; all of the layer's, (B, h, S, d)."""
        index = self.places[:, None, :, None].expand_as(key_states)
        keys = self._keys[layer_idx].scatter_(2, index, key_states)
        return keys, self._values[layer_idx].scatter_(2, index, value_states)


def _zeros(like: Tensor, capacity: int) -> Tensor:
    # No other value will do: what is not visible has no weight, but 0 times a NaN is NaN.
    return like.new_zeros(*like.shape[:2], capacity, like.shape[3])
