"""Mask losses, one value per target: binary cross entropy and Dice, hard, soft or weighted.

Unweighted and without a mean over targets: `objective` does both. Letters: n targets, H W size of a map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

DICE_SMOOTH = 1e-3
"""Smoothing of Dice, in pixels. The published code divides all sums by 1000 and adds 1e-6, which is the same."""


@dataclass(frozen=True)
class MaskLoss:
    """Binary cross entropy and Dice of n targets, each (n,) float32."""

    bce: Tensor
    dice: Tensor


def mask_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    smooth: float = DICE_SMOOTH,
    positive_weight: Tensor | None = None,
    ignore: Tensor | None = None,
) -> MaskLoss:
    """Compare maps with their targets; with p = sigmoid(logits), t the targets and w the positive weight:

    * BCE ``mean(-w t log p - (1 - t) log(1 - p))``; 0 where every pixel is ignored.
    * Dice ``1 - (2 sum(p w t) + smooth) / (sum p + sum(w t) + smooth)``. In [0, 1] without weight; with one it can
      leave that range.

    Args:
        logits: (n, H, W); the gradient is theirs alone.
        targets: (n, H, W) in [0, 1] or boolean.
        smooth: keeps an empty target with an empty prediction at 0 instead of 0 / 0.
        positive_weight: scalar, 1 by default.
        ignore: boolean (H, W) or (n, H, W), pixels left out of every sum and count.
    """
    assert logits.shape == targets.shape, f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ"
    assert not targets.requires_grad
    entropy, given, shared = _Sums.apply(logits.float(), targets, positive_weight, ignore)
    weight = 1.0 if positive_weight is None else positive_weight
    count: int | Tensor = logits.shape[1] * logits.shape[2]
    if ignore is not None:
        targets = targets.masked_fill(ignore, 0)
        count = (~ignore).expand_as(targets).flatten(1).sum(dim=1).clamp(min=1)
    wanted = weight * targets.flatten(1).sum(dim=1, dtype=torch.float32)
    return MaskLoss(
        bce=entropy / count,
        dice=1 - (2 * weight * shared + smooth) / (given + wanted + smooth),
    )


class _Sums(torch.autograd.Function):
    """Cross entropy, sum p and sum p t of each target, (n,) each.

    Their gradients are written out, so that of maps of the image's size logits and targets alone stay for backward.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, weight: Tensor | None, ignore: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(logits, targets, weight, ignore)
        soft = targets.to(logits.dtype)
        # -w t log p - (1 - t) log(1 - p), where -log(1 - p) = x - log p
        entropy, surprise = torch.addcmul(logits, soft, logits, value=-1), F.softplus(-logits)
        entropy.add_(surprise if weight is None else surprise.mul_((soft * (weight - 1)).add_(1)))
        given = logits.sigmoid()
        if ignore is not None:
            entropy.masked_fill_(ignore, 0)
            given.masked_fill_(ignore, 0)
        shared = (given * soft).flatten(1).sum(dim=1)
        return entropy.flatten(1).sum(dim=1), given.flatten(1).sum(dim=1), shared

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        logits, targets, weight, ignore = ctx.saved_tensors
        of_entropy, of_given, of_shared = (gradient.view(-1, 1, 1) for gradient in gradients)
        soft = targets.to(logits.dtype)
        p = logits.sigmoid()
        # d p / d x = p (1 - p) for both sums
        slope = torch.addcmul(p, p, p, value=-1).mul_((soft * of_shared).add_(of_given))
        # d entropy / d x = p - t, and p (1 + (w - 1) t) - w t with a weight
        positive = soft if weight is None else soft * weight
        of_logits = p if weight is None else p.mul_((positive - soft).add_(1))
        slope.add_(of_logits.sub_(positive).mul_(of_entropy))
        return (slope if ignore is None else slope.masked_fill_(ignore, 0)), None, None, None
