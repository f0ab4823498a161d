"""Scores of masks and boxes, exact and independent of order and sharding: sums in integers, means by `math.fsum`.

A share of nothing is None, for example how often no-target phrases are recognised where there are none.
"""

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


def mean(values: Iterable[float]) -> float:
    """Mean, correctly rounded whatever the order.

    Raises:
        ValueError: if there are no values.
    """
    values = list(values)
    if not values:
        raise ValueError("A mean needs values, and there were none to score.")
    return math.fsum(values) / len(values)


def share(flags: Iterable[bool]) -> float | None:
    """Share of true flags, 0 to 1; None if there are no flags."""
    flags = list(flags)
    return sum(flags) / len(flags) if flags else None


def precision(ious: Iterable[float], threshold: float) -> float:
    """Share of IoUs strictly above a threshold: P@threshold.

    Raises:
        ValueError: if there are no IoUs.
    """
    return mean(float(value > threshold) for value in ious)


def giou(scores: Iterable[TargetScore]) -> float:
    """Mean of the per-target IoU (gIoU of the ReasonSeg protocol).

    Raises:
        ValueError: if there are no scores.
    """
    return mean(score.iou for score in scores)


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


def mask_box_iou(prediction: Mask, target: Mask) -> float:
    """IoU of the boxes around two masks; 1.0 if both masks are empty, 0.0 if one is.

    Args:
        prediction: (H, W) boolean.
        target: (H, W) boolean.
    """
    found, wanted = box_of(prediction), box_of(target)
    if found is None or wanted is None:
        return float(found is wanted)
    return box_iou(found, wanted)


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotScore:
    """One phrase of generalised referring segmentation (gRefCOCO, Ref-ZOM), which may have no target."""

    overlap: TargetScore
    """Of the mask drawn, whether or not the phrase is rejected."""
    truth: int
    """Pixels of the target."""
    has_target: bool
    """Whether there is such an object."""
    rejected: bool
    """Whether the model says that there is none."""


@dataclass(frozen=True, kw_only=True)
class GresRule:
    """How wrong decisions about a phrase count in gIoU and cIoU."""

    rejected_keeps_overlap: bool
    """A rejected target counts with the mask drawn for it all the same; otherwise with an empty one."""
    invented_adds_union: bool
    """What is drawn where there is no target adds to the union of cIoU; its IoU is 0 in any case."""


PUBLISHED_GREFCOCO = GresRule(rejected_keeps_overlap=True, invented_adds_union=True)
PUBLISHED_ZOM = GresRule(rejected_keeps_overlap=True, invented_adds_union=False)
RELA = GresRule(rejected_keeps_overlap=False, invented_adds_union=True)
"""The published rules are lenient; `RELA` is the rule of the benchmark's own evaluator."""


def counted(slot: SlotScore, rule: GresRule) -> tuple[float, int, int]:
    """IoU, intersection and union that a phrase contributes."""
    if not slot.has_target:
        union = 0 if slot.rejected or not rule.invented_adds_union else slot.overlap.union
        return float(slot.rejected), 0, union
    if slot.rejected and not rule.rejected_keeps_overlap:
        return 0.0, 0, slot.truth
    return slot.overlap.iou, slot.overlap.intersection, slot.overlap.union


def gres(slots: Iterable[SlotScore], rule: GresRule) -> tuple[float, float]:
    """gIoU and cIoU over phrases with and without a target.

    Raises:
        ValueError: if there are no phrases.
    """
    found = [counted(slot, rule) for slot in slots]
    return mean(value for value, _, _ in found), iou(sum(i for _, i, _ in found), sum(u for _, _, u in found))


def no_target_accuracy(slots: Iterable[SlotScore]) -> float | None:
    """Share of the phrases without a target that are rejected (N-acc); None if every phrase has one."""
    return share(slot.rejected for slot in slots if not slot.has_target)


def target_accuracy(slots: Iterable[SlotScore]) -> float | None:
    """Share of the phrases with a target that are not rejected (T-acc); None if none has one."""
    return share(not slot.rejected for slot in slots if slot.has_target)
