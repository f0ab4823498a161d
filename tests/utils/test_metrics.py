"""Scores against hand-counted 4 x 4 masks, and their independence of order and sharding."""

import random

import numpy as np
import pytest
import torch

from utils.matching import match_masks
from utils.metrics import (
    PUBLISHED_GREFCOCO,
    PUBLISHED_ZOM,
    RELA,
    BoolArray,
    GresRule,
    SlotScore,
    TargetScore,
    box_iou,
    box_of,
    ciou,
    giou,
    gres,
    intersection_and_union,
    iou,
    mask_box_iou,
    no_target_accuracy,
    precision,
    share,
    target_accuracy,
)


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


def test_box_iou_of_masks_knows_empty_ones() -> None:
    assert mask_box_iou(SQUARE, SHIFTED) == 1 / 7
    assert mask_box_iou(EMPTY, EMPTY) == 1.0
    assert mask_box_iou(SQUARE, EMPTY) == mask_box_iou(EMPTY, SQUARE) == 0.0


def test_precision_counts_what_is_strictly_above() -> None:
    assert precision([0.5, 0.5000001, 1.0, 0.0], 0.5) == 0.5
    with pytest.raises(ValueError, match="none to score"):
        precision([], 0.5)


def test_a_share_of_nothing_is_none() -> None:
    assert share([]) is None
    assert share([True, False, False, False]) == 0.25


def _slot(intersection: int, union: int, truth: int, *, rejected: bool) -> SlotScore:
    overlap = TargetScore(intersection=intersection, union=union)
    return SlotScore(overlap=overlap, truth=truth, has_target=truth > 0, rejected=rejected)


SLOTS = [
    _slot(1, 7, 4, rejected=False),
    _slot(4, 5, 4, rejected=True),  # a good mask for a real target that is rejected
    _slot(0, 3, 0, rejected=True),
    _slot(0, 6, 0, rejected=False),  # a mask where there is nothing
]


@pytest.mark.parametrize(
    ("rule", "expected_giou", "expected_ciou"),
    [
        (PUBLISHED_GREFCOCO, (1 / 7 + 4 / 5 + 1 + 0) / 4, 5 / (7 + 5 + 6)),
        (PUBLISHED_ZOM, (1 / 7 + 4 / 5 + 1 + 0) / 4, 5 / (7 + 5)),
        (RELA, (1 / 7 + 0 + 1 + 0) / 4, 1 / (7 + 4 + 6)),
    ],
)
def test_gres_counts_wrong_decisions_by_its_rule(rule: GresRule, expected_giou: float, expected_ciou: float) -> None:
    giou_found, ciou_found = gres(SLOTS, rule)
    assert giou_found == pytest.approx(expected_giou, abs=1e-15)
    assert ciou_found == expected_ciou
    assert gres(SLOTS[::-1], rule) == (giou_found, ciou_found)


def test_gres_accuracies_are_none_where_there_is_nothing_to_judge() -> None:
    assert (no_target_accuracy(SLOTS), target_accuracy(SLOTS)) == (0.5, 0.5)
    assert (no_target_accuracy(SLOTS[:1]), target_accuracy(SLOTS[:1])) == (None, 1.0)
    assert (no_target_accuracy(SLOTS[2:]), target_accuracy(SLOTS[2:])) == (0.5, None)


def test_gres_sums_stay_exact_beyond_float_precision() -> None:
    slots = [_slot(2**60, 2**61, 2**60, rejected=False)] * 8 + [_slot(0, 1, 1, rejected=False)]
    assert gres(slots, RELA)[1] == 2**63 / (2**64 + 1)


def test_matching_takes_the_best_partners_in_any_order() -> None:
    dot = _mask("....", "....", "....", "...#")
    found = match_masks([dot, SHIFTED, SQUARE], [SQUARE, SHIFTED])
    assert [(score.intersection, score.union) for score in found] == [(4, 4), (4, 4), (0, 1)]


def test_a_spurious_prediction_has_iou_zero_and_adds_to_the_union() -> None:
    found = match_masks([SHIFTED, SQUARE], [SHIFTED])
    assert [score.iou for score in found] == [1.0, 0.0]
    assert (giou(found), ciou(found)) == (0.5, 4 / 8)


def test_a_missed_target_has_iou_zero_and_rows_are_the_larger_count() -> None:
    found = match_masks([SQUARE], [SHIFTED, SQUARE, EMPTY])
    assert [(score.intersection, score.union) for score in found] == [(0, 4), (4, 4), (0, 0)]
    assert [score.iou for score in match_masks([], [SQUARE])] == [0.0]
    assert match_masks([], []) == []


def test_matching_leaves_ignored_pixels_out() -> None:
    ignore = _mask("#...", "....", "....", "...#")
    assert [(s.intersection, s.union) for s in match_masks([SQUARE], [SHIFTED], ignore)] == [(1, 6)]


def test_matching_refuses_logits() -> None:
    with pytest.raises(ValueError, match="float32"):
        match_masks([SQUARE.astype(np.float32)], [SQUARE])  # type: ignore[list-item]
