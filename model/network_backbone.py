"""What the language backbones share: parts of a network of transformers with a decoder and vocabulary tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from model.fixed_cache import FixedCache

IMAGE_PLACEHOLDER = -200
"""Id that stands at each of the P image positions of `input_ids`; it is in no vocabulary."""


class NetworkBackbone(nn.Module):
    """See `LanguageBackbone`, of which a subclass brings the rest.

    Attributes:
        network: of transformers; its decoder is `network.model.language_model`.
    """

    placeholder = IMAGE_PLACEHOLDER
    vocabulary_tables: tuple[str, ...]
    network: Any

    @property
    def table_names(self) -> tuple[str, ...]:
        """Names of the vocabulary tables' weights within the network."""
        return tuple(f"{name.removeprefix('network.')}.weight" for name in self.vocabulary_tables)

    @property
    def language_model(self) -> Any:
        """The decoder without its head."""
        return self.network.model.language_model

    @property
    def adapted(self) -> nn.Module:
        """The decoder."""
        return self.language_model

    def new_cache(self) -> DynamicCache:
        """See `LanguageBackbone`."""
        return DynamicCache(config=self.language_model.config)

    def fixed_cache(self, cache: Cache, capacity: int) -> FixedCache:
        """See `LanguageBackbone`."""
        return FixedCache(cache, capacity)

    def trained(self) -> dict[str, list[nn.Parameter]]:
        """See `LanguageBackbone`."""
        return {}

    def draw_new(self, dtype: torch.dtype) -> None:
        """See `LanguageBackbone`; nothing but rows of the vocabulary tables is new."""

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """See `LanguageBackbone`."""
        return self.language_model.embed_tokens(ids)
