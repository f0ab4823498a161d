"""Replies to rows and rows to scores, against hand-counted 4 x 4 masks."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from anchorseg.evaluation.scoring import SCORINGS, Reply
from dataset.sample import Question, Sample


def _mask(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows])


SQUARE = _mask("##..", "##..", "....", "....")
SHIFTED = _mask("....", ".##.", ".##.", "....")
EMPTY = np.zeros((4, 4), bool)


def sample(masks, questions, ignore=None) -> Sample:
    return Sample(
        record="a.json",
        image=np.zeros((4, 4, 3), np.uint8),
        conversations=(),
        masks=np.stack(masks),
        ignore=None if ignore is None else np.stack(ignore),
        questions=tuple(Question(f"question {number}", targets) for number, targets in enumerate(questions)),
    )


def reply(*masks, found=True) -> Reply:
    stacked = np.stack(masks) if masks else np.zeros((0, 4, 4), bool)
    return Reply(masks=stacked, found=found, logits=torch.from_numpy(20.0 * stacked - 10))


def rows(scoring, made, replies):
    return [SCORINGS[scoring].row(made, 0, number, answer) for number, answer in enumerate(replies)]


def scores(scoring, made, replies):
    found = SCORINGS[scoring].scores(rows(scoring, made, replies))
    json.dumps(found, allow_nan=False)
    return found


def test_nothing_wanted_and_nothing_drawn_is_one():
    made = sample([EMPTY], [(0,)])
    assert scores("reason", made, [reply(EMPTY)]) == {"giou": 1.0, "ciou": 1.0}
    assert scores("reason", made, [reply()]) == {"giou": 1.0, "ciou": 1.0}


def test_ignored_pixels_count_nowhere_unless_they_are_the_targets_own():
    ignore = _mask("#...", ".#..", "..#.", "....")
    made = sample([SHIFTED, SQUARE], [(0,), (1,)], ignore=[ignore, EMPTY])
    first, second = rows("reason", made, [reply(SQUARE), reply(SQUARE)])
    assert first.pairs == ((1, 6),)  # (0, 0) leaves; (1, 1) and (2, 2) are the target's own
    assert second.pairs == ((4, 4),)


def test_the_masks_of_one_answer_are_united_and_see_takes_the_first():
    answer = reply(SQUARE, SHIFTED)
    assert SCORINGS["reason"].united(answer).sum() == 7 and (SCORINGS["see"].united(answer) == SQUARE).all()
    assert not SCORINGS["see"].united(reply()).any()
    made = sample([SQUARE, SHIFTED], [(0, 1)])
    assert scores("reason", made, [answer])["giou"] == 1.0
    assert scores("see", made, [answer])["giou"] == 4 / 7


def test_refer_scores_by_hand():
    made = sample([SQUARE, SQUARE, SHIFTED], [(0,), (1,), (2,)])
    half = _mask("##..", "....", "....", "....")
    found = scores("refer", made, [reply(SQUARE), reply(half), reply(found=False)])
    assert found == {
        "giou": 0.5, "ciou": 6 / 12, "p_box_0.5": 1 / 3, "mean_box_iou": 0.5, "p_0.5": 1 / 3, "p_0.6": 1 / 3,
        "p_0.7": 1 / 3, "p_0.8": 1 / 3, "p_0.9": 1 / 3, "see_acc": None,
    }  # fmt: skip


def test_plain_phrases_are_seen_where_a_mask_is_written():
    made = sample([SQUARE, SQUARE, SHIFTED], [(0,), (1,), (2,)])
    written = [replace(made, answer="words") for made in (reply(SQUARE), reply(found=False), reply(EMPTY))]
    assert scores("refer", made, written)["see_acc"] == 1 / 3


def gres_case():
    """Found; rejected with a good mask; rightly rejected; drawn where nothing is."""
    made = sample([SHIFTED, SQUARE, EMPTY, EMPTY], [(0,), (1,), (), ()])
    return made, [reply(SQUARE), reply(SQUARE, found=False), reply(SHIFTED, found=False), reply(SHIFTED)]


def test_gres_counts_by_both_rules():
    assert scores("gres", *gres_case()) == {
        "giou": pytest.approx((1 / 7 + 1 + 1 + 0) / 4), "ciou": 5 / (7 + 4 + 4),
        "giou_rela": pytest.approx((1 / 7 + 0 + 1 + 0) / 4), "ciou_rela": 1 / (7 + 4 + 4),
        "n_acc": 0.5, "t_acc": 0.5,
    }  # fmt: skip


def test_zom_leaves_invented_masks_out_of_the_published_union():
    found = scores("zom", *gres_case())
    assert (found["ciou"], found["ciou_rela"]) == (5 / (7 + 4), 1 / (7 + 4 + 4))


def test_accuracies_without_such_phrases_are_null():
    made = sample([SQUARE], [(0,)])
    assert scores("gres", made, [reply(SQUARE)])["n_acc"] is None
    assert scores("gres", sample([EMPTY], [()]), [reply(SQUARE)])["t_acc"] is None


def test_muse_means_over_rows_and_counts_a_spurious_mask():
    made = sample([SQUARE, SHIFTED, SQUARE], [(0, 1), (2,)])
    answers = [reply(SHIFTED, SQUARE, SQUARE), reply()]
    assert [row.pairs for row in rows("muse", made, answers)] == [((4, 4), (4, 4), (0, 4)), ((0, 4),)]
    assert scores("muse", made, answers) == {"giou": 2 / 4, "ciou": 8 / 16}


def test_matching_at_points_is_never_replaced_by_another():
    made = sample([SQUARE, SHIFTED], [(0, 1)])
    with pytest.raises(ValueError, match="needs the logits"):
        rows("muse, by points", made, [replace(reply(SHIFTED, SQUARE), logits=None)])
    (row,) = rows("muse, by points", made, [reply(SHIFTED, SQUARE)])
    assert row.pairs == ((4, 4), (4, 4))


def test_muse_row_without_targets_and_without_masks_has_no_pair():
    (row,) = rows("muse", sample([SQUARE], [()]), [reply(found=False)])
    assert row.pairs == () and row.iou is None and row.box_iou is None
    json.dumps(row.to_dict(), allow_nan=False)


def test_see_needs_a_mask_with_pixels_and_counts_false_premises_in_the_union():
    made = sample([SQUARE, SQUARE, EMPTY, EMPTY], [(0,), (1,), (), ()])
    answers = [reply(SQUARE), reply(EMPTY), reply(found=False), reply(SHIFTED)]
    assert [row.found for row in rows("see", made, answers)] == [True, False, False, True]
    assert scores("see", made, answers) == {"giou": 0.5, "ciou": 4 / 12, "see_acc": 0.5}


@pytest.mark.parametrize("scoring", SCORINGS)
def test_intervals_lie_around_the_scores_of_which_they_resample_the_terms(scoring):
    rng = np.random.default_rng(0)
    found = []
    for index in range(40):
        made = sample([rng.random((4, 4)) < 0.4 for _ in range(3)], [(0,), (1, 2), () if scoring != "muse" else (0,)])
        answers = [reply(rng.random((4, 4)) < 0.5, found=rng.random() < 0.7) for _ in range(3)]
        answers = [replace(answer, answer="words" if rng.random() < 0.5 else None) for answer in answers]
        found += [SCORINGS[scoring].row(made, index, number, answer) for number, answer in enumerate(answers)]
    scores, intervals = SCORINGS[scoring].scores(found), SCORINGS[scoring].intervals(found)
    assert scores.keys() == intervals.keys()
    terms = [SCORINGS[scoring].terms(row) for row in found]
    for name, score in scores.items():
        top, bottom = (sum(part[name][side] for part in terms) for side in (0, 1))
        assert score == pytest.approx(top / bottom, rel=1e-12)
        low, high = intervals[name]
        assert low <= score <= high and high - low < 0.5
    assert intervals["giou"][0] < intervals["giou"][1]


def test_what_no_row_says_has_no_interval():
    made = sample([SQUARE], [(0,)])
    found = rows("refer", made, [reply(SQUARE)])
    assert SCORINGS["refer"].intervals(found)["see_acc"] is None
    assert SCORINGS["refer"].intervals(found)["giou"] == (1.0, 1.0)
