"""Losses of masks against targets: functional, one value for each target, no weights of terms.

Letters: n targets, h w the map's size.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

SMOOTH = 1e-3
"""Keeps Dice defined for empty masks (published as sums divided by 1000 with 1e-6)."""


def binary_cross_entropy(logits: Tensor, targets: Tensor, *, positive_weight: Tensor | None = None) -> Tensor:
    """Mean over the pixels of each target.

    Args:
        logits: (n, h, w).
        targets: (n, h, w) in [0, 1].
        positive_weight: scalar that multiplies the loss of the target's own pixels.

    Returns:
        (n,).
    """
    losses = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=positive_weight, reduction="none")
    return losses.flatten(1).mean(dim=1)


def dice(logits: Tensor, targets: Tensor, *, smooth: float = SMOOTH) -> Tensor:
    """1 - (2 sum(p t) + s) / (sum p + sum t + s) with p = sigmoid(logits) (arXiv 1606.04797).

    Args:
        logits: (n, h, w).
        targets: (n, h, w), at least 0.
        smooth: s.

    Returns:
        (n,).
    """
    probabilities, targets = logits.sigmoid().flatten(1), targets.flatten(1)
    overlap = (probabilities * targets).sum(dim=1)
    return 1 - (2 * overlap + smooth) / (probabilities.sum(dim=1) + targets.sum(dim=1) + smooth)
