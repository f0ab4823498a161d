"""Masks in the forms of other tools: COCO's run lengths and results, LabelMe's files, PNG."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from dataset.run_lengths import encode_runs
from utils.geometry import Size

LABELME_VERSION = "5.5.0"
"""Whose `mask` shapes these are; earlier than 5.3 LabelMe has none."""


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A (H, W) boolean mask as COCO writes one.

    Returns:
        `segmentation`, with `size` [H, W] and `counts` as text; `bbox` [x, y, width, height] and `area` in pixels.
    """
    encoded = encode_runs(mask)
    return {
        "segmentation": encoded,
        "bbox": [float(side) for side in coco_mask.toBbox(encoded)],
        "area": int(coco_mask.area(encoded)),
    }


def coco_result(mask: np.ndarray, score: float, *, image_id: int | str, category_id: int) -> dict[str, Any]:
    """One entry of a COCO results file."""
    return {"image_id": image_id, "category_id": category_id, **run_lengths(mask), "score": round(score, 6)}


def labelme_file(masks: Sequence[np.ndarray], label: str, image_path: str, size: Size) -> dict[str, Any]:
    """The content of a LabelMe file with (H, W) masks; one without a pixel is left out, for LabelMe has no such shape.

    Args:
        masks: boolean.
        label: of every shape.
        image_path: name of the image file as seen from the LabelMe file.
        size: (H, W).
    """
    return {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": [_labelme_shape(mask, label) for mask in masks if mask.any()],
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }


def _labelme_shape(mask: np.ndarray, label: str) -> dict[str, Any]:
    """A shape of type "mask": its first and last pixel, and the PNG between them."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    (top, bottom), (left, right) = rows[[0, -1]].tolist(), columns[[0, -1]].tolist()
    _, png = cv2.imencode(".png", mask[top : bottom + 1, left : right + 1].astype(np.uint8))
    return {
        "label": label,
        "points": [[left, top], [right, bottom]],
        "group_id": None,
        "description": "",
        "shape_type": "mask",
        "flags": {},
        "mask": base64.b64encode(png.tobytes()).decode("ascii"),
    }


def mask_picture(mask: np.ndarray) -> np.ndarray:
    """A (H, W) boolean mask as a picture (H, W, 3) uint8, 0 and 255."""
    return np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)
