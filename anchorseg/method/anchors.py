"""Several anchors a target (paper, appendix C.2): a prior each, decoded one by one or fused to one.

Letters: N targets, A anchors, K latent tokens, P image tokens, D language width, C prompt width, M low-resolution side,
H W original size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anchorseg.method.head import Prior
from dataset.batch import BankPositions

HIDDEN = 16
"""Channels of the fusion."""


def one_each(targets: BankPositions, anchors: int) -> BankPositions:
    """Every anchor as a target of its own, the anchors of a target one after the other."""
    return BankPositions(
        rows=targets.rows.repeat_interleave(anchors),
        columns=targets.columns.repeat_interleave(anchors, dim=0),
        counts=tuple(count * anchors for count in targets.counts),
    )


def union(each: Prior, anchors: int) -> Prior:
    """The strongest of the priors of a target's anchors, at every image token and pixel."""
    return Prior(
        similarity=each.similarity.unflatten(0, (-1, anchors)).amax(dim=1),
        responses=each.responses.unflatten(0, (-1, anchors)).amax(dim=1),
        maps=tuple(maps.unflatten(0, (-1, anchors)).amax(dim=1) for maps in each.maps),
        anchors=each,
    )


def likeness(responses: Tensor) -> Tensor:
    """Mean cosine of the responses (N, A, P) of different anchors of a target, (N,) in [0, 1]; 0 for one anchor."""
    directions = F.normalize(responses.float(), dim=2)
    count = responses.shape[1]
    cosines = directions @ directions.transpose(1, 2)
    pairs = cosines.flatten(1).sum(dim=1) - cosines.diagonal(dim1=1, dim2=2).sum(dim=1)
    return pairs / max(count * (count - 1), 1)


class AnchorFusion(nn.Module):
    """Responses of A anchors to those of one prior by two convolutions over the grid (paper, Eq. 15).

    It begins as their mean, for its last layer begins at zero.
    """

    def __init__(self, anchors: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(anchors, HIDDEN, kernel_size=3, padding=1)
        self.outer = nn.Conv2d(HIDDEN, 1, kernel_size=3, padding=1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)  # type: ignore[arg-type]

    def forward(self, responses: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map (N, A, P) in [0, 1] over a grid of P tokens to (N, P) in [0, 1]."""
        maps = responses.unflatten(2, grid)
        change = self.outer(torch.relu(self.inner(maps)))
        return (maps.mean(dim=1, keepdim=True) + change).clamp(0, 1).flatten(1)
