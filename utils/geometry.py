"""Geometry: every resize, pad and crop between an image, its two views and the token grid.

An image of any size reaches the networks as a square *view*: its longest side scaled to the view's side, then zeros
on the right and at the bottom; for SAM 2, both sides scaled to the view's. Letters: n targets, P image
tokens, H W original image size.
Sizes are (height, width).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

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
class Frame:
    """Where an image lies in a network's view of it.

    Attributes:
        content: (h, w) of the image, at the top left; of a side longer than the view's the view shows the middle.
        view: (height, width) of the view, padding included.
        grid: (rows, columns) of the tokens or features that cover the view.
        padded: whether views of its kind are square, with padding beside an image that is not.
    """

    content: Size
    view: Size
    grid: Size
    padded: bool = True

    @property
    def num_tokens(self) -> int:
        """P, tokens of the grid."""
        return self.grid[0] * self.grid[1]


class ImageView(Protocol):
    """How images enter a backbone; a value that worker processes may hold."""

    @property
    def num_tokens(self) -> int:
        """P, tokens of an image; where images differ, of the largest."""

    @property
    def described(self) -> tuple:
        """What the pixels of a view depend on beside the image."""

    def frame(self, size: Size) -> Frame:
        """Where an image of size (H, W) comes to lie."""

    def positions(self, frame: Frame) -> Tensor:
        """Rotary positions of an image's tokens, from 0 on: (P,), or (P, A) on A axes."""

    def pixels(self, image: np.ndarray) -> Tensor:
        """The view of an (H, W, 3) uint8 RGB image, (3, S, S) float32; where views differ in size, patches (N, X)."""


@dataclass(frozen=True, kw_only=True)
class PaddedView:
    """The longest side scaled to `side`, normalized, then zeros on the right and at the bottom.

    Attributes:
        side: of the square view in pixels.
        grid: tokens along a side.
        mean, std: of RGB on the scale 0-255.
    """

    side: int
    grid: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def num_tokens(self) -> int:
        """P."""
        return self.grid**2

    @property
    def described(self) -> tuple:
        """See `ImageView`."""
        return pixel_digest(self.side), self.mean, self.std

    def frame(self, size: Size) -> Frame:
        """See `ImageView`."""
        return padded_frame(size, self.side, self.grid)

    def positions(self, frame: Frame) -> Tensor:
        """See `ImageView`: one after the other."""
        return torch.arange(frame.num_tokens)

    def pixels(self, image: np.ndarray) -> Tensor:
        """See `ImageView`."""
        return normalize_and_pad(resize_longest_side(image, self.side), self.side, self.mean, self.std)


@dataclass(frozen=True, kw_only=True)
class CroppedView(PaddedView):
    """The shortest side scaled to `side`, normalized, and the middle of it, as CLIP's own preprocessing does it."""

    @property
    def described(self) -> tuple:
        """See `ImageView`."""
        return ("cropped", *super().described)

    def frame(self, size: Size) -> Frame:
        """See `ImageView`."""
        return Frame(uncropped_size(size, self.side), (self.side, self.side), (self.grid, self.grid))

    def pixels(self, image: np.ndarray) -> Tensor:
        """See `ImageView`."""
        height, width = (int(length * self.side / min(image.shape[:2])) for length in image.shape[:2])
        resized = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
        top, left = (height - self.side) // 2, (width - self.side) // 2
        middle = resized[top : top + self.side, left : left + self.side]
        return normalize_and_pad(middle, self.side, self.mean, self.std)


@dataclass(frozen=True, kw_only=True)
class StretchedView(PaddedView):
    """Both sides scaled to `side`, whatever their ratio, and normalized, as SAM 2's own preprocessing does it.

    Bilinear with antialias, in float32 from the first value on.
    """

    @property
    def described(self) -> tuple:
        """See `ImageView`; Pillow has no part in the pixels."""
        return "stretched", self.side, self.mean, self.std

    def frame(self, size: Size) -> Frame:
        """See `ImageView`."""
        return Frame((self.side, self.side), (self.side, self.side), (self.grid, self.grid))

    def pixels(self, image: np.ndarray) -> Tensor:
        """See `ImageView`."""
        check_rgb(image)
        whole = (self.side, self.side)
        pixels = resample(torch.tensor(image).permute(2, 0, 1), Resize(whole, whole, antialias=True))
        return pixels.sub_(torch.tensor(self.mean).view(3, 1, 1)).div_(torch.tensor(self.std).view(3, 1, 1))


def uncropped_size(size: Size, side: int) -> Size:
    """Size of an image of which a square crop of `side` shows the middle: as much is added before as behind.

    Sizes are cut to whole numbers and differences halved downwards, as READ's code does.
    """
    shortest = min(size)
    height, width = (side + 2 * ((int(length * side / shortest) - side) // 2) for length in size)
    return height, width


def longest_side_size(size: Size, longest: int) -> Size:
    """Size after scaling the longest side to `longest`, rounded half up; a side never falls below 1."""
    scale = longest / max(size)
    height, width = (max(int(side * scale + 0.5), 1) for side in size)
    return height, width


def padded_frame(size: Size, side: int, grid: int) -> Frame:
    """The frame of an image of size (H, W) in a square view of `side` pixels and `grid` tokens along a side."""
    return Frame(longest_side_size(size, side), (side, side), (grid, grid))


def check_rgb(image: np.ndarray) -> None:
    """Refuse what is no image.

    Raises:
        ValueError: if it is not (H, W, 3) uint8.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"An image is {image.shape} {image.dtype}: convert it to RGB, (H, W, 3) uint8.")


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
    check_rgb(image)
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


def normalize_and_pad(image: np.ndarray, side: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Subtract `mean`, divide by `std`, then pad right and bottom; padding is 0 after normalization.

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


def patch_validity(frame: Frame) -> Tensor:
    """(P,) boolean, row-major: which patches of a view show content: those whose top-left pixel lies in it."""
    (height, width), (rows, columns) = frame.view, frame.grid
    tops, lefts = torch.arange(rows) * height // rows, torch.arange(columns) * width // columns
    return ((tops < frame.content[0])[:, None] & (lefts < frame.content[1])[None, :]).flatten()


def _pad(maps: Tensor, size: Size) -> Tensor:
    return F.pad(maps, (0, size[1] - maps.shape[-1], 0, size[0] - maps.shape[-2]))


def _through_view(maps: Tensor, frame: Frame, size: Size) -> Tensor:
    """Bilinear to a view, crop to its content or fill it up with zeros, bilinear to the original image."""
    above, left = ((content - view) // 2 for content, view in zip(frame.content, frame.view, strict=True))
    if above <= 0 and left <= 0:
        return resample(maps, Resize(frame.view, frame.content), Resize(size, size))
    middle = resample(maps, Resize(frame.view, frame.view))
    return resample(F.pad(middle, (left, left, above, above)), Resize(size, size))


def tokens_to_map(responses: Tensor, frame: Frame, size: Size) -> Tensor:
    """Spread one response per image token over the original image: the token-to-mask map (paper, section 3.3).

    Grid -> bilinear to the view -> crop to its content -> bilinear to the image.

    Args:
        responses: (n, P), row-major over the grid; what lies behind it is left out.
        frame: of the view that the tokens come from.
        size: (H, W).

    Returns:
        (n, H, W) float32.
    """
    return _through_view(on_grid(responses, frame), frame, size)


def on_grid(values: Tensor, frame: Frame) -> Tensor:
    """Values (..., P) of image tokens as (..., rows, columns); what lies behind the grid's tokens is left out."""
    return values[..., : frame.num_tokens].unflatten(-1, frame.grid)


def map_to_prompt(maps: Tensor, side: int = 256, *, padded: bool = True) -> Tensor:
    """Shrink (n, H, W) maps to SAM's mask prompt (n, 1, side, side): antialiased, as the image lies in its view.

    Args:
        maps: over the image.
        side: of the prompt.
        padded: zeros right and below, as in a `PaddedView`; otherwise stretched, as in a `StretchedView`.
    """
    size = longest_side_size((maps.shape[1], maps.shape[2]), side) if padded else (side, side)
    return _pad(resample(maps, Resize(size, size, antialias=True)), (side, side))[:, None]


def masks_to_tokens(masks: Tensor, frame: Frame, *, mode: Literal["nearest", "area"] = "nearest") -> Tensor:
    """Carry masks to the token grid: the inverse of `tokens_to_map`.

    Antialiased bilinear to the view's content, zero padding, then one value per patch. The resize to the view takes
    one mask at a time, so that no float copy of all full-size masks exists at once.

    Args:
        masks: (n, H, W), boolean or 0 and 1.
        frame: of the view that the tokens come from.
        mode: "nearest" samples a patch's top-left pixel, as published, and misses objects between these pixels;
            "area" averages the patch and misses none.

    Returns:
        (n, rows, columns) float32 in [0, 1].

    Raises:
        ValueError: if `mode` is neither.
    """
    if mode not in ("nearest", "area"):
        raise ValueError(f"The sampling mode {mode!r} is unknown: choose 'nearest' or 'area'.")
    if len(masks) == 0:
        return masks.new_zeros(0, *frame.grid, dtype=torch.float32)
    content = masks.new_zeros((len(masks), *frame.content), dtype=torch.float32)
    for row, mask in enumerate(masks):
        content[row] = resample(mask[None], Resize(frame.content, frame.content, antialias=True))[0]
    return F.interpolate(_pad(content, frame.view)[:, None], frame.grid, mode=mode)[:, 0]


def upscale_masks(low_resolution: Tensor, frame: Frame, size: Size) -> Tensor:
    """Bring mask logits to the original image, in float32 whatever their precision.

    Bilinear to the view -> crop to its content -> bilinear to the image.

    Args:
        low_resolution: (n, h, w) logits over the whole view.
        frame: of the view.
        size: (H, W).

    Returns:
        (n, H, W) float32 logits.
    """
    return _through_view(low_resolution, frame, size)


def stretch_masks(low_resolution: Tensor, size: Size) -> Tensor:
    """Bring mask logits over a `StretchedView` to the original image, bilinear in one step, as SAM 2 does.

    Args:
        low_resolution: (n, h, w) logits.
        size: (H, W).

    Returns:
        (n, H, W) float32 logits.
    """
    return resample(low_resolution, Resize(size, size))
