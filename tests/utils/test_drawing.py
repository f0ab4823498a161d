"""Panels: what is drawn where, in which colour, at which size."""

import numpy as np
import pytest

from utils.drawing import NOT_ASKED, PREDICTION_COLOUR, TRUTH_COLOUR, Image, contact_sheet, panel
from utils.lettering import draw_text, text_width, wrap

IMAGE = np.full((60, 80, 3), 90, np.uint8)
MASK = np.zeros((60, 80), np.bool_)
MASK[20:40, 30:50] = True
EMPTY = np.zeros((60, 80), np.bool_)


def _count(picture: Image, colour: tuple[int, int, int]) -> int:
    """Pixels of a colour; a swatch beside a title has 13 x 13 of them, a contour adds its line."""
    return int((picture == np.array(colour, np.uint8)).all(axis=2).sum())


def test_small_images_are_enlarged() -> None:
    assert panel(IMAGE, "what?").shape[1] > 400


def test_large_images_are_reduced() -> None:
    large = panel(np.zeros((2000, 1000, 3), np.uint8), "what?")
    assert max(large.shape) < 900


def test_each_part_adds_a_column() -> None:
    prior = np.linspace(0, 1, 24 * 24).reshape(24, 24)
    widths = [
        panel(IMAGE, "q").shape[1],
        panel(IMAGE, "q", truth=MASK).shape[1],
        panel(IMAGE, "q", truth=MASK, prediction=MASK).shape[1],
        panel(IMAGE, "q", truth=MASK, prediction=MASK, prior=prior).shape[1],
    ]
    assert len(set(np.diff(widths))) == 1 and widths[1] > widths[0]


def test_outlines_have_the_colour_of_their_part() -> None:
    swatch = 13 * 13
    truth_only = panel(IMAGE, "q", truth=MASK)
    assert _count(truth_only, TRUTH_COLOUR) > swatch + 200
    assert _count(truth_only, PREDICTION_COLOUR) == 0
    both = panel(IMAGE, "q", truth=MASK, prediction=MASK)
    assert _count(both, PREDICTION_COLOUR) > swatch + 200


def test_no_target_is_not_the_same_as_not_asked_or_empty() -> None:
    not_asked = panel(IMAGE, "q", truth=MASK, prediction=NOT_ASKED)
    no_target = panel(IMAGE, "q", truth=MASK, prediction=None)
    empty = panel(IMAGE, "q", truth=MASK, prediction=EMPTY)
    assert not_asked.shape == panel(IMAGE, "q", truth=MASK).shape
    assert no_target.shape == empty.shape != not_asked.shape
    assert not np.array_equal(no_target, empty)


def test_score_caption_and_ignored_pixels_are_shown() -> None:
    plain = panel(IMAGE, "q", truth=MASK, prediction=MASK)
    assert not np.array_equal(plain, panel(IMAGE, "q", truth=MASK, prediction=MASK, score=0.5))
    assert panel(IMAGE, "q", truth=MASK, prediction=MASK, caption="small print").shape[0] > plain.shape[0]
    assert not np.array_equal(plain, panel(IMAGE, "q", truth=MASK, prediction=MASK, ignore=~MASK))


def test_a_lone_pixel_stays_visible() -> None:
    for size in ((60, 80), (3000, 4000)):
        lone = np.zeros(size, np.bool_)
        lone[size[0] // 2, size[1] // 2] = True
        picture = panel(np.full((*size, 3), 90, np.uint8), "q", truth=lone)
        assert _count(picture, TRUTH_COLOUR) > 13 * 13


def test_a_flat_prior_is_not_divided_by_zero() -> None:
    assert panel(IMAGE, "q", prior=np.ones((24, 24))).dtype == np.uint8


def test_inputs_are_left_alone() -> None:
    image, mask = IMAGE.copy(), MASK.copy()
    panel(image, "q", truth=mask, prediction=mask, ignore=mask)
    assert np.array_equal(image, IMAGE) and np.array_equal(mask, MASK)


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        panel(IMAGE.astype(np.float32), "q")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="truth must be boolean"):
        panel(IMAGE, "q", truth=MASK[:10])
    with pytest.raises(ValueError, match="prediction must be boolean"):
        panel(IMAGE, "q", prediction=MASK.astype(np.uint8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="finite"):
        panel(IMAGE, "q", prior=np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="pictures and columns"):
        contact_sheet([], 2)


def test_contact_sheet_keeps_every_picture() -> None:
    pictures = [np.full((10 + 5 * index, 20, 3), 40 * index, np.uint8) for index in range(5)]
    sheet = contact_sheet(pictures, 2)
    assert sheet.shape == (15 + 25 + 30 + 2, 20 + 1 + 20, 3)
    for index in range(5):
        assert _count(sheet, (40 * index,) * 3) == pictures[index].shape[0] * 20
    assert contact_sheet(pictures[:1], 4).shape == (10, 20, 3)


def test_wrapped_lines_fit() -> None:
    text = "the object that a child would throw\n  into the air  " * 3
    lines = wrap(text, 22, 200)
    assert all(text_width(line, 22) <= 200 for line in lines)
    assert " ".join(lines) == " ".join(text.split())
    assert "".join(wrap("物体" * 40, 22, 200, max_lines=50)) == "物体" * 40
    assert wrap("", 22, 200) == []
    cut = wrap("word " * 500, 22, 200, max_lines=3)
    assert len(cut) == 3 and cut[-1].endswith("…") and text_width(cut[-1], 22) <= 200


def test_other_scripts_are_not_question_marks() -> None:
    pictures = []
    for text in ("éßø", "???", "где", "物体在"):
        canvas = np.full((40, 120, 3), 255, np.uint8)
        draw_text(canvas, text, (2, 2), 24, (0, 0, 0))
        pictures.append(canvas.tobytes())
    assert len(set(pictures)) == 4
