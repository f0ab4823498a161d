"""Every resize, pad and crop between image, SAM view, CLIP view and token grid.

Letters: n maps or masks, P image tokens, H W original size. Sizes are (height, width).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]
Channels = tuple[float, float, float]

SAM_MEAN: Channels = (123.675, 116.28, 103.53)
SAM_STD: Channels = (58.395, 57.12, 57.375)
CLIP_MEAN: Channels = (0.48145466 * 255, 0.4578275 * 255, 0.40821073 * 255)
CLIP_STD: Channels = (0.26862954 * 255, 0.26130258 * 255, 0.27577711 * 255)
"""Means and deviations of RGB channels on the scale 0 to 255."""


@dataclass(frozen=True)
class View:
    """An image as a backbone sees it: pixels (3, side, side) float32, and the (h, w) of its content, top left."""

    pixels: Tensor
    size: Size


def longest_side_size(size: Size, longest: int) -> Size:
    """Size after scaling the longest side to `longest`, each side rounded by int(x + 0.5)."""
    scale = longest / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def resize_longest_side(image: np.ndarray, longest: int) -> np.ndarray:
    """Resize an (H, W, 3) uint8 image so that its longest side is `longest` (PIL bilinear, antialiased)."""
    height, width = longest_side_size((image.shape[0], image.shape[1]), longest)
    return np.asarray(Image.fromarray(image).resize((max(width, 1), max(height, 1)), Image.Resampling.BILINEAR))


def make_view(image: np.ndarray, side: int, mean: Channels, std: Channels) -> View:
    """Resize the longest side to `side`, normalise, pad with zeros right and bottom.

    Args:
        image: (H, W, 3) uint8 RGB.
        side: of the square view in pixels.
        mean: of each channel, 0 to 255.
        std: of each channel, 0 to 255.
    """
    resized = torch.from_numpy(resize_longest_side(image, side).copy()).permute(2, 0, 1).float()
    content = (resized - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    height, width = content.shape[1:]
    return View(F.pad(content, (0, side - width, 0, side - height)), (height, width))


def patch_validity(size: Size, side: int, grid: int) -> Tensor:
    """(grid * grid,) boolean: whether a patch's top-left pixel lies in the content of size (h, w)."""
    corners = torch.arange(grid) * side // grid
    return ((corners < size[0]).unsqueeze(1) & (corners < size[1]).unsqueeze(0)).flatten()


def _bilinear(maps: Tensor, size: Size, *, antialias: bool = False) -> Tensor:
    return F.interpolate(maps.unsqueeze(1), size, mode="bilinear", align_corners=False, antialias=antialias)[:, 0]


def _view_to_image(maps: Tensor, side: int, content: Size, original: Size) -> Tensor:
    """Maps (n, h, w) of a square view -> (n, H, W): to the view's pixels, cut the padding off, to the image."""
    if len(maps) == 0:
        return maps.new_zeros(0, *original)
    return _bilinear(_bilinear(maps, (side, side))[:, : content[0], : content[1]], original)


def tokens_to_map(responses: Tensor, view_side: int, content: Size, original: Size) -> Tensor:
    """The token-to-mask map: responses (n, P), row-major over the patch grid, at the image's size (n, H, W).

    Args:
        responses: (n, P) with P a square number.
        view_side: side of the CLIP view.
        content: (h, w) of the image inside the view.
        original: (H, W).

    Raises:
        ValueError: if P is not a square number.
    """
    grid = math.isqrt(responses.shape[1])
    if grid * grid != responses.shape[1]:
        raise ValueError(f"{responses.shape[1]} image tokens are not a square grid; P must be a square such as 576")
    return _view_to_image(responses.view(-1, grid, grid), view_side, content, original)


def upscale_masks(low_resolution: Tensor, view_side: int, content: Size, original: Size) -> Tensor:
    """Low-resolution mask logits (n, M, M) of the SAM view at the image's size, (n, H, W) float32."""
    return _view_to_image(low_resolution.float(), view_side, content, original)


def image_to_view(maps: Tensor, side: int) -> Tensor:
    """Maps (n, H, W) on a square view (n, side, side): antialiased bilinear to the longest side, zero padding."""
    height, width = longest_side_size((maps.shape[1], maps.shape[2]), side)
    height, width = max(height, 1), max(width, 1)
    if len(maps) == 0:
        return maps.new_zeros(0, side, side)
    return F.pad(_bilinear(maps, (height, width), antialias=True), (0, side - width, 0, side - height))


def map_to_prompt(maps: Tensor, side: int) -> Tensor:
    """Token-to-mask maps (n, H, W) as SAM mask prompts (n, 1, side, side)."""
    return image_to_view(maps, side).unsqueeze(1)


def masks_to_tokens(masks: Tensor, view_side: int, grid: int) -> Tensor:
    """Masks (n, H, W) on the patch grid (n, grid, grid): onto the CLIP view, then the nearest pixel of each patch."""
    view = image_to_view(masks.float(), view_side)
    return F.interpolate(view.unsqueeze(1), (grid, grid), mode="nearest")[:, 0]
