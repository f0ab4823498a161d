"""Scores of masks and boxes: IoU, gIoU, cIoU, exact and independent of order and sharding."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

BoolArray = npt.NDArray[np.bool_]
Mask = BoolArray | torch.Tensor
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetScore:
    """Overlap of one predicted mask with its target, in whole pixels."""

    intersection: int
    """Pixels in both."""
    union: int
    """Pixels in either."""

    def __post_init__(self) -> None:
        if not 0 <= self.intersection <= self.union:
            raise ValueError(
                f"An overlap needs 0 <= intersection <= union, got intersection {self.intersection} "
                f"and union {self.union}."
            )

    @property
    def iou(self) -> float:
        """Intersection over union; 1.0 when both masks are empty."""
        return iou(self.intersection, self.union)


def _as_bool(mask: Mask, name: str) -> BoolArray:
    array = mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)
    if array.dtype != np.bool_:
        raise ValueError(f"The {name} must be a boolean array, got {array.dtype}; threshold it first.")
    return array


def intersection_and_union(prediction: Mask, target: Mask, ignore: Mask | None = None) -> tuple[int, int]:
    """Count the pixels in both masks and in either.

    Args:
        prediction: boolean array or tensor of any shape, usually (H, W).
        target: boolean, same shape.
        ignore: boolean, same shape; True pixels (label 255) count in neither number. None ignores nothing.

    Returns:
        Intersection and union in pixels.

    Raises:
        ValueError: if the shapes differ or an array is not boolean.
    """
    predicted, wanted = _as_bool(prediction, "prediction"), _as_bool(target, "target")
    if predicted.shape != wanted.shape:
        raise ValueError(f"The prediction has shape {predicted.shape} but its target has {wanted.shape}.")
    both, either = predicted & wanted, predicted | wanted
    if ignore is not None:
        ignored = _as_bool(ignore, "ignore mask")
        if ignored.shape != wanted.shape:
            raise ValueError(f"The ignore mask has shape {ignored.shape} but the target has {wanted.shape}.")
        both, either = both & ~ignored, either & ~ignored
    return int(np.count_nonzero(both)), int(np.count_nonzero(either))


def iou(intersection: int, union: int) -> float:
    """Divide intersection by union; 1.0 when the union is 0: nothing was wanted and nothing drawn."""
    return intersection / union if union else 1.0


def giou(scores: Iterable[TargetScore]) -> float:
    """Mean of the per-target IoU (gIoU of the ReasonSeg protocol), correctly rounded whatever the order.

    Raises:
        ValueError: if there are no scores.
    """
    values = [score.iou for score in scores]
    if not values:
        raise ValueError("gIoU is a mean over targets, and there were none to score.")
    return math.fsum(values) / len(values)


def ciou(scores: Iterable[TargetScore]) -> float:
    """Summed intersection over summed union (cIoU), from integer sums.

    Returns:
        A value from 0 to 1; 1.0 when no target and no prediction has any pixel, as in `iou`.

    Raises:
        ValueError: if there are no scores.
    """
    scores = list(scores)
    if not scores:
        raise ValueError("cIoU is a ratio of sums over targets, and there were none to score.")
    return iou(sum(score.intersection for score in scores), sum(score.union for score in scores))


def box_of(mask: Mask) -> tuple[int, int, int, int] | None:
    """Tightest box around a mask.

    Args:
        mask: (H, W) boolean.

    Returns:
        (x0, y0, x1, y1) in pixels with x1 and y1 exclusive, or None for an empty mask.

    Raises:
        ValueError: if the mask is not boolean or not two-dimensional.
    """
    array = _as_bool(mask, "mask")
    if array.ndim != 2:
        raise ValueError(f"A box needs a mask of shape (H, W), got {array.shape}.")
    columns, rows = np.flatnonzero(array.any(axis=0)), np.flatnonzero(array.any(axis=1))
    if not columns.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def box_iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1) with exclusive maxima.

    Raises:
        ValueError: if a box has no area.
    """
    for box in (first, second):
        if not (box[0] < box[2] and box[1] < box[3]):
            raise ValueError(f"A box (x0, y0, x1, y1) needs x0 < x1 and y0 < y1, got {box}.")
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    intersection = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return intersection / (sum(areas) - intersection)
