"""Matching of several predicted masks with several targets (MUSE)."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from utils.metrics import BoolArray, TargetScore, intersection_and_union


def match_masks(
    predictions: Sequence[BoolArray], targets: Sequence[BoolArray], ignore: BoolArray | None = None
) -> list[TargetScore]:
    """Pair predictions and targets one to one so that the sum of their exact IoU is largest (Hungarian method).

    The fewer of the two are filled up with empty masks, so that a target without a partner, or a prediction without
    one, has IoU 0 unless it is empty itself.

    Args:
        predictions: n masks (H, W).
        targets: m masks (H, W).
        ignore: (H, W) pixels that count nowhere.

    Returns:
        max(n, m) overlaps: of the targets in their order, then of the predictions that are left.
    """
    if not len(predictions) and not len(targets):
        return []
    count = max(len(predictions), len(targets))
    nothing = np.zeros_like([*predictions, *targets][0])
    found = [*predictions, *[nothing] * (count - len(predictions))]
    wanted = [*targets, *[nothing] * (count - len(targets))]
    pairs = [[intersection_and_union(mask, target, ignore) for mask in found] for target in wanted]
    table = [[TargetScore(intersection=both, union=either) for both, either in row] for row in pairs]
    rows, columns = linear_sum_assignment(np.array([[score.iou for score in row] for row in table]), maximize=True)
    return [table[row][column] for row, column in zip(rows, columns, strict=True)]
