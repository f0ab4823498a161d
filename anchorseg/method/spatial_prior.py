"""Spatial prior: where the anchor points among the image tokens, as a map that conditions SAM's features.

Letters: N targets, P image tokens, D language width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def similarity(anchors: Tensor, image_states: Tensor) -> Tensor:
    """Raw dot product of each anchor with its image's token states, s = V a (paper, Eq. 7).

    Args:
        anchors: (N, D).
        image_states: (N, P, D) last-layer hidden states at the image positions.

    Returns:
        (N, P).
    """
    return torch.einsum("nd,npd->np", anchors, image_states)


def min_max(scores: Tensor, valid: Tensor | None = None) -> Tensor:
    """Scale each row to [0, 1] over its P tokens, with gradients through minimum and maximum.

    A constant row has no order and gives zeros; the published code divides 0 by 0 there.

    Args:
        scores: (N, P).
        valid: (N, P) boolean, tokens that count; the others become 0. All count without it.

    Returns:
        (N, P) spatial responses r.
    """
    if valid is None:
        valid = torch.ones_like(scores, dtype=torch.bool)
    low = scores.masked_fill(~valid, torch.inf).amin(dim=1, keepdim=True)
    spread = scores.masked_fill(~valid, -torch.inf).amax(dim=1, keepdim=True) - low
    return ((scores - low) / spread.clamp(min=torch.finfo(scores.dtype).tiny)).masked_fill(~valid, 0.0)
