"""Geometry: every resize, pad and crop between an image, its two views and the token grid.

An image of any size reaches the networks as a square *view*: its longest side scaled to the view's side, then zeros
on the right and at the bottom. Letters: n targets, P image tokens, H W original image size.
Sizes are (height, width).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from utils.resampling import Resize, Size, resample

SAM_MEAN = (123.675, 116.28, 103.53)
SAM_STD = (58.395, 57.12, 57.375)
CLIP_MEAN = (122.7709383, 116.7460125, 104.09373615)
CLIP_STD = (68.5005327, 66.6321579, 70.32316305)
"""Statistics of RGB pixels on the scale 0-255."""


@dataclass(frozen=True)
class View:
    """An image as a network takes it.

    Attributes:
        pixels: (3, side, side) float32, normalised, zero right of and below the content.
        size: (h, w) of the content.
    """

    pixels: Tensor
    size: Size


def longest_side_size(size: Size, longest: int) -> Size:
    """Size after scaling the longest side to `longest`, rounded half up; a side never falls below 1."""
    scale = longest / max(size)
    height, width = (max(int(side * scale + 0.5), 1) for side in size)
    return height, width


def resize_longest_side(image: np.ndarray, longest: int) -> np.ndarray:
    """Resize so that the longest side is `longest`: bilinear with antialias, on whole grey levels.

    The width first, then the height, with whole grey levels in between: the published order. One call of Pillow takes
    the height first from release 13 on where a picture is taller than twice its width.

    Args:
        image: (H, W, 3) uint8.
        longest: side in pixels.

    Returns:
        (h, w, 3) uint8.

    Raises:
        ValueError: if the image is not (H, W, 3) uint8.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"An image is {image.shape} {image.dtype}: convert it to RGB, (H, W, 3) uint8.")
    height, width = longest_side_size(image.shape[:2], longest)
    narrowed = Image.fromarray(image).resize((width, image.shape[0]), Image.Resampling.BILINEAR)
    return np.array(narrowed.resize((width, height), Image.Resampling.BILINEAR))


PROBES = ((61, 17), (17, 61), (90, 29), (29, 90), (40, 40))
"""Sizes of the pictures that `pixel_digest` resizes: tall, wide, square."""


def pixel_digest(longest: int) -> str:
    """Digest of what `resize_longest_side` makes of small fixed pictures, larger and smaller than they are.

    It changes with the library that resizes, so that what was computed from other pixels can be told apart.
    """
    digest = hashlib.sha256()
    for height, width in PROBES:
        y, x, channel = np.ogrid[:height, :width, :3]
        picture = ((7 * y * y + 13 * x * x + x * y + 31 * channel) % 256).astype(np.uint8)
        for side in (longest, 16):
            digest.update(resize_longest_side(picture, side).tobytes())
    return digest.hexdigest()


def normalise_and_pad(image: np.ndarray, side: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Subtract `mean`, divide by `std`, then pad right and bottom; padding is 0 after normalisation.

    Args:
        image: (h, w, 3) uint8 with h, w <= side.
        side: side of the square result.
        mean: three values on the scale 0-255.
        std: three values on the scale 0-255.

    Returns:
        (3, side, side) float32.
    """
    height, width = image.shape[:2]
    assert max(height, width) <= side, f"content of {height} x {width} does not fit a view of side {side}"
    pixels = torch.zeros(3, side, side)
    content = pixels[:, :height, :width]
    content.copy_(torch.from_numpy(image).permute(2, 0, 1))
    content.sub_(torch.tensor(mean).view(3, 1, 1)).div_(torch.tensor(std).view(3, 1, 1))
    return pixels


def make_view(image: np.ndarray, side: int, mean: Sequence[float], std: Sequence[float]) -> View:
    """Turn an (H, W, 3) uint8 RGB image into a square view."""
    resized = resize_longest_side(image, side)
    height, width = resized.shape[:2]
    return View(pixels=normalise_and_pad(resized, side, mean, std), size=(height, width))


def patch_validity(size: Size, side: int, grid: int) -> Tensor:
    """Which patches of a view show content: those whose top-left pixel lies in it.

    Args:
        size: (h, w) of the content.
        side: side of the view.
        grid: patches along a side.

    Returns:
        (grid * grid,) bool, row-major.
    """
    corners = torch.arange(grid) * side // grid
    return ((corners < size[0])[:, None] & (corners < size[1])[None, :]).flatten()


def grid_side(num_tokens: int) -> int:
    """Patches along a side of the square grid that `num_tokens` image tokens fill.

    Raises:
        ValueError: if `num_tokens` is not a perfect square.
    """
    grid = math.isqrt(num_tokens)
    if grid * grid != num_tokens:
        raise ValueError(f"{num_tokens} image tokens do not fill a square grid: give one response per patch.")
    return grid


def _pad_to_square(maps: Tensor, side: int) -> Tensor:
    return F.pad(maps, (0, side - maps.shape[-1], 0, side - maps.shape[-2]))


def _through_view(maps: Tensor, side: int, content_size: Size, original_size: Size) -> Tensor:
    """Bilinear to a view, crop to its content, bilinear to the original image."""
    return resample(maps, Resize((side, side), content_size), Resize(original_size, original_size))


def tokens_to_map(responses: Tensor, view_side: int, content_size: Size, original_size: Size) -> Tensor:
    """Spread one response per image token over the original image: the token-to-mask map (paper, section 3.3).

    Grid -> bilinear to the view -> crop to its content -> bilinear to the image.

    Args:
        responses: (n, P), row-major over a square grid.
        view_side: side of the view the tokens come from.
        content_size: (h, w) of the view's content.
        original_size: (H, W).

    Returns:
        (n, H, W) float32.

    Raises:
        ValueError: if P is not a perfect square.
    """
    grid = grid_side(responses.shape[1])
    return _through_view(responses.unflatten(1, (grid, grid)), view_side, content_size, original_size)


def map_to_prompt(maps: Tensor, side: int = 256) -> Tensor:
    """Shrink (n, H, W) maps to SAM's mask prompt (n, 1, side, side): antialiased, zeros right and below."""
    size = longest_side_size((maps.shape[1], maps.shape[2]), side)
    return _pad_to_square(resample(maps, Resize(size, size, antialias=True)), side)[:, None]


def masks_to_tokens(
    masks: Tensor, view_side: int, grid: int, *, mode: Literal["nearest", "area"] = "nearest"
) -> Tensor:
    """Carry masks to the token grid: the way back of `tokens_to_map`.

    Antialiased bilinear to the view's content, zero padding, then one value per patch. The resize to the view takes
    one mask at a time, so that no float copy of all full-size masks exists at once.

    Args:
        masks: (n, H, W), boolean or 0 and 1.
        view_side: side of the view.
        grid: patches along a side.
        mode: "nearest" samples a patch's top-left pixel, as published, and misses objects between these pixels;
            "area" averages the patch and misses none.

    Returns:
        (n, grid, grid) float32 in [0, 1].

    Raises:
        ValueError: if `mode` is neither.
    """
    if mode not in ("nearest", "area"):
        raise ValueError(f"The sampling mode {mode!r} is unknown: choose 'nearest' or 'area'.")
    if len(masks) == 0:
        return masks.new_zeros(0, grid, grid, dtype=torch.float32)
    size = longest_side_size((masks.shape[1], masks.shape[2]), view_side)
    content = masks.new_zeros((len(masks), *size), dtype=torch.float32)
    for row, mask in enumerate(masks):
        content[row] = resample(mask[None], Resize(size, size, antialias=True))[0]
    return F.interpolate(_pad_to_square(content, view_side)[:, None], (grid, grid), mode=mode)[:, 0]


def upscale_masks(low_res: Tensor, sam_side: int, sam_content_size: Size, original_size: Size) -> Tensor:
    """Bring SAM's mask logits to the original image, in float32 whatever their precision.

    Bilinear to the SAM view -> crop to its content -> bilinear to the image.

    Args:
        low_res: (n, h, w) logits over the whole view.
        sam_side: side of the SAM view.
        sam_content_size: (h, w) of the view's content.
        original_size: (H, W).

    Returns:
        (n, H, W) float32 logits.
    """
    return _through_view(low_res, sam_side, sam_content_size, original_size)
