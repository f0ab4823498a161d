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


def shown_overlay(answer: Answer, hidden: Collection[int]) -> np.ndarray:
    """The image with its targets, each in the colour of its number, without those whose numbers are hidden."""
    masks = [target.mask & (number not in hidden) for number, target in enumerate(answer.targets, start=1)]
    return overlay(answer.image, masks)


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


def _small(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    scale = min(1.0, MAP_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def colour_rules(selector: str) -> str:
    """CSS that gives the n-th label of a list the colour of target n, as a variable `--target`."""
    count = len(COLOURS)
    return "\n".join(
        f"{selector} label:nth-of-type({count}n+{place}) {{ --target: rgb{colour}; }}"
        for place, colour in enumerate(COLOURS, start=1)
    )
