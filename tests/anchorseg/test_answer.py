"""Answers as other tools read them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from anchorseg.inference.answer import Answer, Target
from dataset.images import read_image, read_mask
from dataset.readers.labelme import read_labelme
from utils.errors import UserError
from utils.overlay import COLOURS, overlay

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (40, 60, 3)).astype(np.uint8)


def blob(top: int, left: int) -> np.ndarray:
    """A ring with loose pixels: holes, several parts, ragged edges."""
    mask = np.zeros((40, 60), dtype=np.uint8)
    cv2.circle(mask, (left, top), 9, 1, 4)
    mask |= (RNG.random((40, 60)) > 0.98).astype(np.uint8)
    return mask.astype(bool)


MASKS = [blob(15, 20), blob(22, 40), np.zeros((40, 60), bool), np.ones((40, 60), bool)]


@pytest.fixture
def answer():
    scores = [0.91, 0.8, 0.0, 1.0]
    targets = [Target(mask=m, score=s, prior=None, phrase="it is") for m, s in zip(MASKS, scores, strict=True)]
    return Answer(query="the ring", prompt="What is the ring?", text="it is <SEG>", targets=tuple(targets), image=IMAGE)


def test_coco_results_are_read_by_pycocotools(answer, tmp_path: Path):
    results = answer.to_coco(image_id=np.int64(7), category_id=3)
    truth = {
        "images": [{"id": 7, "height": 40, "width": 60}],
        "annotations": [],
        "categories": [{"id": 3, "name": "x"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    read = COCO(tmp_path / "truth.json").loadRes(str(tmp_path / "results.json"))
    found = read.loadAnns(read.getAnnIds(imgIds=[7]))
    assert len(found) == 4
    for entry, result, mask in zip(found, results, MASKS, strict=True):
        assert np.array_equal(read.annToMask(entry).astype(bool), mask)
        assert result["area"] == mask.sum() and result["image_id"] == 7 and result["category_id"] == 3
        if mask.any():
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
            assert result["bbox"] == box


def test_a_labelme_file_is_read_back_with_equal_masks(answer, tmp_path: Path):
    path = tmp_path / "ring.json"
    path.write_text(json.dumps(answer.to_labelme("ring.png")))
    read = read_labelme(path)
    assert read.image_name == "ring.png" and read.image_size == (40, 60) and read.phrases == ("the ring",)
    shapes = [shape.region(40, 60) for shape in read.shapes]
    assert np.array_equal(shapes, [mask for mask in MASKS if mask.any()])


def test_saved_files(answer, tmp_path: Path):
    written = answer.save(tmp_path / "new", "ring")
    assert sorted(written) == sorted((tmp_path / "new").iterdir())
    for number, mask in enumerate(MASKS, 1):
        assert np.array_equal(read_mask(tmp_path / "new" / f"ring.mask{number}.png"), mask)
    assert np.array_equal(read_image(tmp_path / "new" / "ring.overlay.png"), answer.overlay())
    with pytest.raises(UserError, match="without folders"):
        answer.save(tmp_path, "../ring")
    content = json.loads((tmp_path / "new" / "ring.answer.json").read_text())
    assert content["query"] == "the ring" and content["text"] == "it is <SEG>" and content["complete"]
    for target, mask in zip(content["targets"], MASKS, strict=True):
        assert np.array_equal(coco_mask.decode(target["segmentation"]).astype(bool), mask)


def test_short_in_print(answer):
    assert "4 targets" not in repr(answer) and len(repr(answer.targets[0])) < 80
    assert repr(answer.targets[0]) == f"Target({MASKS[0].sum()} pixels, score 0.910, phrase 'it is')"
    silent = Answer(query="the moon", prompt="", text="There is none.", targets=(), image=IMAGE)
    assert repr(silent) == "Answer('the moon' -> 'There is none.': no target)"
    assert silent.to_coco() == [] and silent.to_labelme("a.png")["shapes"] == [] and silent.mask is None
    assert np.array_equal(silent.overlay(), IMAGE)


def test_overlay_changes_masks_and_outlines_alone():
    square = np.zeros((40, 60), bool)
    square[10:20, 10:20] = True
    picture = overlay(IMAGE, [square, square.T[:40] & False, np.roll(square, 20, axis=1)])
    changed = (picture != IMAGE).any(axis=2)
    assert not changed[:, :8].any() and not changed[25:].any() and changed[12:18, 12:18].all()
    for column, colour in ((15, COLOURS[0]), (35, COLOURS[2])):
        assert np.abs(picture[10, column] - np.array(colour, int)).max() < 40
