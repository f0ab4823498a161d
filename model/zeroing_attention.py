"""Attention under a mask that the caller decides, in which a query may see no key; and decoders that run with it.

Letters: R rows (sequences), T positions, S keys, d width of a head, D language width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from model.attention_kernels import right_kernels

ZEROING_ATTENTION = "anchorseg_zeroing"


def zeroing_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    *,
    no_key: Tensor,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Attend under a boolean mask; a query that may see no key gets exactly zero.

    Variable-length flash attention leaves zeros at padded positions, and released weights depend on it. Kernels differ
    in what they return for a query without a key, and some give NaN gradients to all (`attention_kernels`), so the
    mask lets such a query see every key, and the zero is written here.

    Args:
        module: the attention layer.
        query: (R, heads, T, d); `key` and `value` alike with S positions.
        attention_mask: (R, 1, T, S) boolean, true where the query may see the key, or what is added to their product,
            0 or -inf; at least one key is seen in each row.
        no_key: (R, T, 1) boolean, true for a query that may see no key.
        kwargs: scaling and dropout, as transformers passes them.
    """
    with right_kernels(query, key):
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return output.masked_fill(no_key.unsqueeze(-1), 0), None


AttentionInterface.register(ZEROING_ATTENTION, zeroing_attention)

ATTENTION = {"text_config": ZEROING_ATTENTION, "vision_config": "sdpa"}
"""Of each part of a backbone; CLIP needs "sdpa", for eager attention would add its boolean mask as 0 and 1."""


def last_states(
    decoder: Any, embeddings: Tensor, positions: Tensor, visible: Tensor, cache: Cache | None, **further: Any
) -> Tensor:
    """Last-layer states (R, T, D) of a decoder of transformers, after its final norm.

    Args:
        decoder: whose attention is `ZEROING_ATTENTION`.
        embeddings: (R, T, D).
        positions: rotary, as the decoder takes them.
        visible: (R, T, S) boolean, true where position t may see key s (S = cached + T).
        cache: keys and values of earlier positions, extended in place.
        further: arguments of this decoder.
    """
    no_key = ~visible.any(dim=-1, keepdim=True)
    unseen = ~(visible | no_key).unsqueeze(1)
    outputs = decoder(
        inputs_embeds=embeddings,
        position_ids=positions,
        # As it is added, for every layer would make it of a boolean mask again.
        attention_mask=embeddings.new_zeros(()).expand(unseen.shape).masked_fill(unseen, -torch.inf),
        no_key=no_key,
        use_cache=cache is not None,
        cache=cache,
        **further,
    )
    return outputs.last_hidden_state
