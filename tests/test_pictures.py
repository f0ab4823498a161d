"""Pictures of an evaluation print the numbers of results.json."""

import dataclasses

import numpy as np
import pytest

import eval_reasonseg
from anchorseg.evaluation.evaluator import predictions
from anchorseg.evaluation.scoring import SCORINGS, Reply
from dataset.sample import Question
from tests.conftest import make_sample
from utils import drawing

HALF = np.zeros((60, 80), bool)
HALF[10:30, 15:30] = True


def printed(monkeypatch, tmp_path, scoring, masks, *, ignore=None, targets=(0,)):
    """What is written on the picture of one question, and its row."""
    base = make_sample(0)
    left_out = None if ignore is None else np.stack([ignore, ignore])
    sample = dataclasses.replace(base, ignore=left_out, questions=(Question("the red thing", targets),))
    reply = Reply(masks=np.asarray(masks), found=True)
    (shown,) = predictions(SCORINGS[scoring], 0, sample, [reply])
    texts, draw_text = [], drawing.draw_text

    def noted(picture, text, *rest):
        texts.append(text)
        draw_text(picture, text, *rest)

    monkeypatch.setattr(drawing, "draw_text", noted)
    eval_reasonseg.draw(shown, tmp_path, 0)
    return texts, shown.row


def corner(size=40):
    region = np.zeros((60, 80), bool)
    region[:, size:] = True
    return region


@pytest.mark.parametrize(
    ("scoring", "masks", "ignore", "targets"),
    [
        ("reason", [HALF], None, (0,)),
        ("reason", [HALF | corner()], corner(45), (0,)),
        ("reason", [~HALF], ~HALF, (0,)),
        ("refer", [HALF | corner(70)], corner(60), (0,)),
        ("muse", [HALF, corner()], None, (0, 1)),
        ("muse", [HALF, corner(70), ~HALF], corner(75), (0, 1)),
        ("see", [HALF, corner()], corner(75), (0,)),
    ],
)
def test_the_iou_on_a_picture_is_that_of_its_row(monkeypatch, tmp_path, scoring, masks, ignore, targets):
    texts, row = printed(monkeypatch, tmp_path, scoring, masks, ignore=ignore, targets=targets)
    assert [text for text in texts if text.startswith("IoU")] == [f"IoU {row.iou:.3f}"]
    assert ("grey: not scored" in texts) == (ignore is not None)


def test_pixels_that_are_not_scored_change_the_number(monkeypatch, tmp_path):
    texts, row = printed(monkeypatch, tmp_path, "reason", [HALF | corner(45)], ignore=corner(45))
    assert "IoU 0.500" in texts and row.iou == 0.5


def test_no_number_is_printed_where_none_is_counted(monkeypatch, tmp_path):
    texts, row = printed(monkeypatch, tmp_path, "muse", np.zeros((0, 60, 80), bool), targets=())
    assert row.iou is None and not any("IoU" in text for text in texts)
