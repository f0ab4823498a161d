"""Token-Mask Cycle Consistency (TMCC), both directions (paper, Eq. 9 to 11 and appendix C.1).

Both directions use values in [0, 1] as logits, as the published weights were trained.
Letters: n targets of one image, P image tokens, H W original size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from anchorseg import losses
from utils import geometry

TOKEN_TO_MASK_KERNEL, MASK_TO_TOKEN_KERNEL, SIGMA = 31, 23, 7.0
"""Kernel sizes, and the deviation: pixels in the first direction, patches in the second."""

SOFT_SMOOTH = 1e-6


@dataclass(frozen=True)
class CycleLoss:
    """Unweighted losses of each target: bce (n,), dice (n,)."""

    bce: Tensor
    dice: Tensor


def _kernel(size: int, sigma: float, like: Tensor) -> Tensor:
    offsets = torch.arange(size, dtype=like.dtype, device=like.device) - size // 2
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    return weights / weights.sum()


def gaussian_target(masks: Tensor, kernel: int, sigma: float = SIGMA) -> Tensor:
    """Soften masks: Gaussian with reflected borders, divided by its maximum.

    The kernel shrinks to the smaller image side (odd, at least 3). A mask with a side of 1 stays as it is, and an
    all-zero mask stays zero.

    Args:
        masks: (n, h, w) in [0, 1].
        kernel: odd size.
        sigma: deviation in pixels of the map.

    Returns:
        (n, h, w) float32 in [0, 1].
    """
    soft = masks.float()
    smallest = min(soft.shape[1:])
    if smallest > 1 and len(soft):
        size = max(3, min(kernel, smallest if smallest % 2 else smallest - 1))
        weights, reach = _kernel(size, sigma, soft), size // 2
        # The two-dimensional kernel is a product, so two passes of one dimension give the same.
        padded = F.pad(soft.unsqueeze(1), (reach, reach, reach, reach), mode="reflect")
        rows = F.conv2d(padded, weights.view(1, 1, 1, -1))
        soft = F.conv2d(rows, weights.view(1, 1, -1, 1))[:, 0]
    highest = soft.amax(dim=(1, 2), keepdim=True) if len(soft) else soft
    return torch.where(highest > 0, soft / highest.clamp(min=torch.finfo(soft.dtype).tiny), soft)


def positive_weight(targets: Tensor) -> Tensor:
    """w = sum(1 - t) / (sum t + 1e-6) over all targets (n, h, w) of an image, a scalar without gradient."""
    positive = targets.detach().sum()
    return (targets.numel() - positive) / (positive + 1e-6)


def soft_losses(logits: Tensor, targets: Tensor, weight: Tensor) -> CycleLoss:
    """BCE with positive weight w, and Dice with w on the target in numerator and denominator.

    Args:
        logits: (n, h, w).
        targets: (n, h, w) in [0, 1].
        weight: the scalar w.
    """
    return CycleLoss(
        bce=losses.binary_cross_entropy(logits, targets, positive_weight=weight),
        dice=losses.dice(logits, targets * weight, smooth=SOFT_SMOOTH),
    )


def token_to_mask(maps: Tensor, masks: Tensor) -> CycleLoss:
    """Token-to-mask: the map at the image's size against the softened mask.

    Args:
        maps: (n, H, W) token-to-mask maps in [0, 1].
        masks: (n, H, W) boolean, all masks of the image: they share one positive weight.
    """
    targets = gaussian_target(masks, TOKEN_TO_MASK_KERNEL)
    return soft_losses(maps, targets, positive_weight(targets))


def mask_to_token(responses: Tensor, masks: Tensor, view_side: int) -> CycleLoss:
    """Mask-to-token: the responses against the mask brought down to the patch grid and softened there.

    Args:
        responses: (n, P) spatial responses in [0, 1].
        masks: (n, H, W) boolean.
        view_side: side of the CLIP view in pixels.
    """
    grid = math.isqrt(responses.shape[1])
    targets = gaussian_target(geometry.masks_to_tokens(masks, view_side, grid), MASK_TO_TOKEN_KERNEL)
    logits = responses.view(-1, grid, grid)
    return CycleLoss(bce=losses.binary_cross_entropy(logits, targets), dice=losses.dice(logits, targets))
