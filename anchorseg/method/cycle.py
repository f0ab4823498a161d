"""Token-Mask Cycle Consistency: the spatial responses and the masks must explain each other (paper, Eq. 9-11).

Both losses read responses in [0, 1] as logits, as published; `scale` and `shift` turn them into logits that can reach
the targets. All calls are per image, because the token-to-mask weight is one scalar over all masks of an image.
Letters: n targets of one image, P image tokens, H W original image size.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from anchorseg.method.losses import MaskLoss, mask_loss
from utils import geometry
from utils.filters import Box, content_box, gaussian_weights, separable_filter, widened

TOKEN_TO_MASK_KERNEL = 31
"""Side of the Gaussian on the image, in pixels."""

MASK_TO_TOKEN_KERNEL = 23
"""Side of the Gaussian on the token grid, in patches."""

SIGMA = 7.0
"""Standard deviation of both Gaussians, in pixels and in patches."""

TOKEN_TO_MASK_SMOOTH = 1e-6


@torch.no_grad()
def gaussian_target(
    masks: Tensor, kernel: int = TOKEN_TO_MASK_KERNEL, sigma: float = SIGMA, box: Box | None = None
) -> Tensor:
    """Soften masks with a Gaussian whose highest value is 1 in each of them.

    The kernel shrinks to the smaller side of the masks (odd, at least 3) with `sigma` unchanged. Masks with a side of
    1 are not filtered; an all-zero mask stays zero.

    Args:
        masks: (n, h, w), boolean or in [0, 1].
        kernel: side of the filter, odd.
        sigma: standard deviation, in pixels of the mask.
        box: outside which all masks are zero; without it, it is looked for, and the host waits for a GPU.

    Returns:
        (n, h, w) float32 in [0, 1], without gradient.

    Raises:
        ValueError: if `kernel` is even or below 3.
    """
    if kernel < 3 or kernel % 2 == 0:
        raise ValueError(f"The Gaussian's kernel is {kernel}: choose an odd number of at least 3.")
    height, width = masks.shape[1:]
    smaller = min(height, width)
    fitting = max(min(kernel, smaller - 1 + smaller % 2), 3)
    # Two radii of zeros around what is filtered, so that borders other than the image's reflect nothing.
    margin = 2 * (fitting // 2)
    whole = (0, height, 0, width)
    part = widened(whole if smaller <= 2 * margin else box or content_box(masks), margin)
    soft = torch.zeros_like(masks, dtype=torch.float32)
    content = masks[part].float()
    if smaller > 1:
        content = separable_filter(content, gaussian_weights(fitting, sigma))
    highest = content.amax(dim=(1, 2), keepdim=True)
    soft[part] = content / torch.where(highest > 0, highest, 1)
    return soft


@torch.no_grad()
def positive_weight(targets: Tensor, ignore: Tensor | None = None) -> Tensor:
    """Positive weight that balances soft targets, ``sum(1 - t) / (sum t + 1e-6)``, as one scalar over all of them.

    Args:
        targets: (n, H, W) in [0, 1].
        ignore: boolean (H, W) or (n, H, W), pixels left out of both sums.

    Returns:
        Scalar without gradient, of the targets' type.
    """
    if ignore is not None:
        targets = targets.masked_fill(ignore, 0)
    count = targets.numel() if ignore is None else (~ignore).expand_as(targets).sum()
    positive = targets.sum(dtype=torch.float64)
    return ((count - positive) / (positive + 1e-6)).to(targets.dtype)


def _as_logits(responses: Tensor, scale: float | Tensor, shift: float | Tensor) -> Tensor:
    is_identity = not isinstance(scale, Tensor) and not isinstance(shift, Tensor) and (scale, shift) == (1, 0)
    return responses if is_identity else responses * scale + shift


def token_to_mask(
    maps: Tensor,
    masks: Tensor,
    *,
    kernel: int = TOKEN_TO_MASK_KERNEL,
    sigma: float = SIGMA,
    scale: float | Tensor = 1.0,
    shift: float | Tensor = 0.0,
    ignore: Tensor | None = None,
    box: Box | None = None,
) -> MaskLoss:
    """Compare the token-to-mask maps of one image with its softened masks.

    Args:
        maps: (n, H, W) in [0, 1], from `utils.geometry.tokens_to_map`.
        masks: (n, H, W) boolean, none of them empty.
        kernel: side of the target's Gaussian, in pixels.
        sigma: standard deviation of the target's Gaussian, in pixels.
        scale: factor that turns a map into logits.
        shift: summand that turns a map into logits.
        ignore: boolean (H, W) or (n, H, W), pixels left out of every sum.
        box: see `gaussian_target`.

    Returns:
        Weighted BCE and weighted Dice of each target.
    """
    targets = gaussian_target(masks, kernel, sigma, box)
    weight = positive_weight(targets, ignore)
    logits = _as_logits(maps, scale, shift)
    return mask_loss(logits, targets, smooth=TOKEN_TO_MASK_SMOOTH, positive_weight=weight, ignore=ignore)


def mask_to_token(
    responses: Tensor,
    masks: Tensor,
    frame: geometry.Frame,
    *,
    kernel: int = MASK_TO_TOKEN_KERNEL,
    sigma: float = SIGMA,
    target_sampling: Literal["nearest", "area"] = "nearest",
    target_precision: Literal["float32", "bf16"] = "float32",
    scale: float | Tensor = 1.0,
    shift: float | Tensor = 0.0,
    ignore: Tensor | None = None,
    patch_valid: Tensor | None = None,
) -> MaskLoss:
    """Compare the token responses of one image with its masks, softened on the token grid.

    Args:
        responses: (n, P) in [0, 1], row-major over the grid.
        masks: (n, H, W) boolean, none of them empty.
        frame: of the view that the tokens come from.
        kernel: side of the target's Gaussian, in patches.
        sigma: standard deviation of the target's Gaussian, in patches.
        target_sampling: how a mask reaches the grid, see `utils.geometry.masks_to_tokens`.
        target_precision: type that the softened target is rounded to.
        scale: factor that turns a response into a logit.
        shift: summand that turns a response into a logit.
        ignore: boolean (H, W) or (n, H, W); a patch is left out if at least half of it is ignored.
        patch_valid: boolean (P,); the other patches are left out.

    Returns:
        BCE and Dice of each target.

    Raises:
        ValueError: if `target_sampling` is unknown.
    """
    coarse = geometry.masks_to_tokens(masks, frame, mode=target_sampling)
    targets = gaussian_target(coarse, kernel, sigma)
    if target_precision == "bf16":
        targets = targets.bfloat16().float()
    logits = geometry.on_grid(_as_logits(responses, scale, shift), frame)
    left_out = None if patch_valid is None else ~geometry.on_grid(patch_valid, frame)
    if ignore is not None:
        ignored = geometry.masks_to_tokens(ignore.view(-1, *ignore.shape[-2:]), frame, mode="area") >= 0.5
        left_out = ignored if left_out is None else left_out | ignored
    return mask_loss(logits, targets, ignore=left_out)
