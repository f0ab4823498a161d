"""Mask losses, one value per target: binary cross entropy and Dice, hard, soft or weighted.

Unweighted and without a mean over targets: `anchorseg.objective` does both. Letters: n targets, H W size of a map.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

DICE_SMOOTH = 1e-3
"""Smoothing of Dice, in pixels. The published code divides all sums by 1000 and adds 1e-6, which is the same."""


def _targets_like(logits: Tensor, targets: Tensor) -> Tensor:
    assert logits.shape == targets.shape, f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ"
    return targets.to(logits.dtype)


def binary_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    positive_weight: Tensor | None = None,
    ignore: Tensor | None = None,
) -> Tensor:
    """Binary cross entropy of each target, the mean over its pixels.

    Args:
        logits: (n, H, W).
        targets: (n, H, W) in [0, 1] or boolean; float32 saves a copy.
        positive_weight: scalar factor on the positive part, `t * log p`.
        ignore: boolean (H, W) or (n, H, W), pixels left out of sum and count.

    Returns:
        (n,) float32; 0 where every pixel is ignored.
    """
    logits = logits.float()
    losses = F.binary_cross_entropy_with_logits(
        logits, _targets_like(logits, targets), pos_weight=positive_weight, reduction="none"
    )
    if ignore is None:
        return losses.flatten(1).mean(dim=1)
    kept = (~ignore).expand_as(losses).flatten(1).sum(dim=1)
    return losses.masked_fill(ignore, 0).flatten(1).sum(dim=1) / kept.clamp(min=1)


def dice(
    logits: Tensor,
    targets: Tensor,
    smooth: float = DICE_SMOOTH,
    *,
    positive_weight: Tensor | None = None,
    ignore: Tensor | None = None,
) -> Tensor:
    """Dice loss of each target, ``1 - (2 sum(p w t) + smooth) / (sum p + sum(w t) + smooth)`` with p = sigmoid(logits).

    Args:
        logits: (n, H, W).
        targets: (n, H, W) in [0, 1] or boolean; float32 saves a copy.
        smooth: keeps an empty target with an empty prediction at 0 instead of 0 / 0.
        positive_weight: scalar factor w on the target, 1 by default.
        ignore: boolean (H, W) or (n, H, W), pixels left out of every sum.

    Returns:
        (n,) float32. In [0, 1] without weight; with one it can leave that range.
    """
    probabilities = logits.float().sigmoid()
    targets = _targets_like(probabilities, targets)
    if ignore is not None:
        probabilities = probabilities.masked_fill(ignore, 0)
        targets = targets.masked_fill(ignore, 0)
    shared = (probabilities * targets).flatten(1).sum(dim=1)
    wanted = targets.flatten(1).sum(dim=1)
    if positive_weight is not None:
        shared, wanted = shared * positive_weight, wanted * positive_weight
    given = probabilities.flatten(1).sum(dim=1)
    return 1 - (2 * shared + smooth) / (given + wanted + smooth)
