"""Matching of several predicted masks with several targets (MUSE)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

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


POINTS = 12_544
"""Of PixelLM's matching: 112 x 112."""


def drawn_points(seed: int) -> Tensor:
    """(POINTS, 2) x and y in [0, 1], drawn."""
    return torch.from_numpy(np.random.default_rng(seed).random((1, POINTS, 2)).astype(np.float32))[0]


def point_costs(logits: Tensor, targets: Tensor, points: Tensor) -> Tensor:
    """PixelLM's cost of each pair: BCE and Dice (smoothed by 1) at some points, to which both are interpolated.

    Args:
        logits: (n, H, W).
        targets: (m, H, W) boolean.
        points: (k, 2), see `drawn_points`.

    Returns:
        (n, m).
    """

    def at_points(maps: Tensor) -> Tensor:
        places = (2 * points - 1).to(maps.device).expand(len(maps), -1, -1).unsqueeze(2)
        return F.grid_sample(maps.float().unsqueeze(1), places, align_corners=False)[:, 0, :, 0]

    found, wanted = at_points(logits), at_points(targets.float())
    # -t log p - (1 - t) log(1 - p) = softplus(x) - t x, averaged over points.
    bce = (F.softplus(found).sum(dim=1, keepdim=True) - found @ wanted.T) / len(points)
    drawn = found.sigmoid()
    dice = 1 - (2 * drawn @ wanted.T + 1) / (drawn.sum(dim=1, keepdim=True) + wanted.sum(dim=1) + 1)
    return bce + dice


def match_by_costs(
    predictions: Sequence[BoolArray], targets: Sequence[BoolArray], costs: np.ndarray, ignore: BoolArray | None = None
) -> list[TargetScore]:
    """As `match_masks`, for the pairs whose costs (n, m) have the least sum; those left over meet an empty mask."""
    if not len(predictions) and not len(targets):
        return []
    nothing = np.zeros_like([*predictions, *targets][0])
    rows, columns = linear_sum_assignment(costs)
    partner = dict(zip(columns.tolist(), rows.tolist(), strict=True))
    pairs = [
        (predictions[partner[number]] if number in partner else nothing, target)
        for number, target in enumerate(targets)
    ]
    pairs += [(mask, nothing) for number, mask in enumerate(predictions) if number not in set(rows.tolist())]
    counts = (intersection_and_union(mask, target, ignore) for mask, target in pairs)
    return [TargetScore(intersection=both, union=either) for both, either in counts]
