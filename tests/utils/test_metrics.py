"""Scores against hand-counted 4 x 4 masks, and their independence of order and sharding."""

import random

import numpy as np
import pytest
import torch

from utils.metrics import BoolArray, TargetScore, box_iou, box_of, ciou, giou, intersection_and_union, iou


def _mask(*rows: str) -> BoolArray:
    return np.array([[letter == "#" for letter in row] for row in rows])


SQUARE = _mask("##..", "##..", "....", "....")
SHIFTED = _mask("....", ".##.", ".##.", "....")
EMPTY = np.zeros((4, 4), np.bool_)


@pytest.mark.parametrize(
    ("prediction", "target", "expected"),
    [
        (SQUARE, SQUARE, (4, 4)),
        (SQUARE, SHIFTED, (1, 7)),
        (SQUARE, EMPTY, (0, 4)),
        (EMPTY, SQUARE, (0, 4)),
        (EMPTY, EMPTY, (0, 0)),
        (SQUARE, ~SQUARE, (0, 16)),
    ],
)
def test_counts(prediction: BoolArray, target: BoolArray, expected: tuple[int, int]) -> None:
    assert intersection_and_union(prediction, target) == expected
    assert intersection_and_union(torch.from_numpy(prediction), target) == expected


def test_ignored_pixels_count_in_neither_number() -> None:
    ignore = _mask("#...", ".#..", "....", "...#")
    assert intersection_and_union(SQUARE, SHIFTED, ignore) == (0, 5)


def test_iou_of_nothing_is_one() -> None:
    assert iou(0, 0) == 1.0
    assert iou(1, 7) == 1 / 7


def test_giou_is_the_mean_and_ciou_the_ratio_of_sums() -> None:
    scores = [TargetScore(intersection=i, union=u) for i, u in ((4, 4), (1, 7), (0, 4), (0, 0))]
    assert giou(scores) == pytest.approx((1 + 1 / 7 + 0 + 1) / 4, abs=1e-15)
    assert ciou(scores) == 5 / 15


def test_all_empty_is_one() -> None:
    assert giou([TargetScore(intersection=0, union=0)]) == ciou([TargetScore(intersection=0, union=0)]) == 1.0


def test_order_and_sharding_change_nothing() -> None:
    dice = random.Random(0)
    scores = [TargetScore(intersection=dice.randrange(1000), union=dice.randrange(1000, 3000)) for _ in range(999)]
    for shards in (1, 2, 7):
        gathered = [score for shard in range(shards) for score in scores[shard::shards]]
        assert (giou(gathered), ciou(gathered)) == (giou(scores), ciou(scores))


def test_large_sums_stay_exact() -> None:
    big = TargetScore(intersection=2**60, union=2**61)
    assert ciou([big] * 8 + [TargetScore(intersection=0, union=1)]) == 2**63 / (2**64 + 1)


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4\).*\(2, 4\)"):
        intersection_and_union(SQUARE, SQUARE[:2])
    with pytest.raises(ValueError, match="ignore mask"):
        intersection_and_union(SQUARE, SQUARE, SQUARE[:2])
    with pytest.raises(ValueError, match="uint8"):
        intersection_and_union(SQUARE.astype(np.uint8), SQUARE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="intersection 3 and union 2"):
        TargetScore(intersection=3, union=2)
    for score in (giou, ciou):
        with pytest.raises(ValueError, match="none to score"):
            score([])


def test_box_of_has_exclusive_maxima() -> None:
    assert box_of(_mask("....", ".#..", "..##", "....")) == (1, 1, 4, 3)
    assert box_of(torch.from_numpy(_mask("....", "....", "....", "#..."))) == (0, 3, 1, 4)
    assert box_of(EMPTY) is None
    with pytest.raises(ValueError, match="shape"):
        box_of(EMPTY[0])


def test_box_iou() -> None:
    assert box_iou((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert box_iou((0, 0, 2, 2), (1, 1, 3, 3)) == 1 / 7
    assert box_iou((0, 0, 2, 2), (2, 0, 4, 2)) == 0
    assert box_iou((0, 0, 1, 1), (5, 5, 9, 9)) == 0
    with pytest.raises(ValueError, match="x0 < x1"):
        box_iou((0, 0, 0, 2), (0, 0, 2, 2))
