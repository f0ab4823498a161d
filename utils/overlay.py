"""Masks over their image, at its own size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import cv2
import numpy as np

COLOURS = ((255, 110, 0), (40, 120, 220), (0, 170, 100), (200, 60, 180), (230, 190, 0), (0, 180, 200))
"""RGB of the first, second, ... target; they begin again after the last."""
_SHARE = 0.5


def overlay(image: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """Tint and outline each mask in its colour.

    Args:
        image: (H, W, 3) uint8 RGB; it is not changed.
        masks: (H, W) boolean.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    picture = image.copy()
    width = max(1, round(max(image.shape[:2]) / 400))
    for mask, colour in zip(masks, cycle(COLOURS), strict=False):
        if not mask.any():
            continue
        picture[mask] = ((1 - _SHARE) * picture[mask] + _SHARE * np.array(colour)).astype(np.uint8)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, colour, width, cv2.LINE_AA)
    return picture
