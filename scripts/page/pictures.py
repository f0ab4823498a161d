"""Pictures of an answer: the targets that are shown over the image, and small maps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from anchorseg.inference.answer import Answer, Target
from utils.drawing import heat_picture
from utils.overlay import COLOURS, overlay

MAP_SIDE = 256
"""Longest side of a map's picture in pixels; maps have the resolution of the model's patches, which is lower."""

SCREEN_SIDES = (640, 1600)
"""Range of the longest side of an answer's picture on the page; the one to download has the image's size."""


@dataclass(frozen=True, kw_only=True)
class MapPicture:
    """A map of one target: the target's number from 1, what it shows, (H, W, 3) uint8 RGB."""

    target: int
    name: str
    picture: np.ndarray

    @property
    def caption(self) -> str:
        """Target and name."""
        return f"{self.target}: {self.name}"


def screen_scale(image: np.ndarray) -> float:
    """By how much an image is larger on the page, so that small ones can be seen and large ones are sent quickly."""
    longest = max(image.shape[:2])
    return min(max(longest, SCREEN_SIDES[0]), SCREEN_SIDES[1]) / longest


def shown_overlay(answer: Answer, hidden: Collection[int], scale: float = 1.0) -> np.ndarray:
    """The image with its targets, each in the colour of its number, without those whose numbers are hidden."""
    masks = [target.mask & (number not in hidden) for number, target in enumerate(answer.targets, start=1)]
    if scale == 1:
        return overlay(answer.image, masks)
    size = _scaled_size(answer.image, scale)
    image = cv2.resize(answer.image, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    large = [cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for mask in masks]
    return overlay(np.asarray(image, np.uint8), large)


def target_at(targets: Sequence[Target], x: int, y: int) -> int | None:
    """The number of the smallest target whose mask holds a pixel, or None."""
    found = [
        (target.area, number)
        for number, target in enumerate(targets, start=1)
        if 0 <= y < target.mask.shape[0] and 0 <= x < target.mask.shape[1] and target.mask[y, x]
    ]
    return min(found)[1] if found else None


def map_pictures(answer: Answer) -> tuple[MapPicture, ...]:
    """The prior of each target, and the map of each token of its query bank where the answer has them."""
    small = _small(answer.image)
    found: list[MapPicture] = []
    for number, target in enumerate(answer.targets, start=1):
        maps = {"spatial prior": target.prior, **(target.token_maps or {})}
        found += [
            MapPicture(target=number, name=name, picture=heat_picture(small, values))
            for name, values in maps.items()
            if values is not None
        ]
    return tuple(found)


def colour_rules(selector: str) -> str:
    """CSS that gives the n-th label of a list the colour of target n, as a variable `--target`."""
    count = len(COLOURS)
    return "\n".join(
        f"{selector} label:nth-of-type({count}n+{place}) {{ --target: rgb{colour}; }}"
        for place, colour in enumerate(COLOURS, start=1)
    )


def _small(image: np.ndarray) -> np.ndarray:
    scale = min(1.0, MAP_SIDE / max(image.shape[:2]))
    return np.asarray(cv2.resize(image, _scaled_size(image, scale), interpolation=cv2.INTER_AREA), np.uint8)


def _scaled_size(image: np.ndarray, scale: float) -> tuple[int, int]:
    """(width, height)."""
    height, width = image.shape[:2]
    return max(1, round(width * scale)), max(1, round(height * scale))
