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
    bce_sum, prob_sum, intersection = _MaskSums.apply(logits.float(), targets, positive_weight, ignore)
    weight = 1.0 if positive_weight is None else positive_weight
    count: int | Tensor = logits.shape[1] * logits.shape[2]
    if ignore is not None:
        targets = targets.masked_fill(ignore, 0)
        count = (~ignore).expand_as(targets).flatten(1).sum(dim=1).clamp(min=1)
    target_sum = weight * targets.flatten(1).sum(dim=1, dtype=torch.float32)
    return MaskLoss(
        bce=bce_sum / count,
        dice=1 - (2 * weight * intersection + smooth) / (prob_sum + target_sum + smooth),
    )


class _MaskSums(torch.autograd.Function):
    """Weighted BCE, sum p and sum p t of each target, (n,) each, with p = sigmoid(x).

    The gradients are written out, so that of maps of the image's size logits and targets alone stay for backward.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, weight: Tensor | None, ignore: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(logits, targets, weight, ignore)
        soft = targets.to(logits.dtype)
        # w t (-log p) + (1 - t) (-log(1 - p)), where -log(1 - p) = x - log p
        bce, neg_log_prob = torch.addcmul(logits, soft, logits, value=-1), F.softplus(-logits)
        bce.add_(neg_log_prob if weight is None else neg_log_prob.mul_((soft * (weight - 1)).add_(1)))
        prob = logits.sigmoid()
        if ignore is not None:
            bce.masked_fill_(ignore, 0)
            prob.masked_fill_(ignore, 0)
        intersection = (prob * soft).flatten(1).sum(dim=1)
        return bce.flatten(1).sum(dim=1), prob.flatten(1).sum(dim=1), intersection

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        logits, targets, weight, ignore = ctx.saved_tensors
        grad_bce, grad_prob_sum, grad_intersection = (gradient.view(-1, 1, 1) for gradient in gradients)
        soft = targets.to(logits.dtype)
        p = logits.sigmoid()
        # d p / d x = p (1 - p), for sum p and for sum p t
        grad_logits = torch.addcmul(p, p, p, value=-1).mul_((soft * grad_intersection).add_(grad_prob_sum))
        # d bce / d x = p - t, and p (1 + (w - 1) t) - w t with a weight
        weighted = soft if weight is None else soft * weight
        grad_of_bce = p if weight is None else p.mul_((weighted - soft).add_(1))
        grad_logits.add_(grad_of_bce.sub_(weighted).mul_(grad_bce))
        return (grad_logits if ignore is None else grad_logits.masked_fill_(ignore, 0)), None, None, None
