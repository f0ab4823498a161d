"""Records are checked before a run: what cannot be used is named, what did not change is not checked again."""

import json
import os
import shutil

import cv2
import numpy as np
import pytest

from anchorseg.training.data import checked, data_folder, open_benchmarks
from dataset import checking
from dataset.checking import check_records
from dataset.drawn.writer import write_scenes
from dataset.families.custom import Custom, CustomBenchmark
from dataset.families.reason_seg import ReasonSeg, ReasonSegTraining
from dataset.readers.folder import DataFolder
from dataset.source import Checkable
from utils.errors import DataError
from utils.seeding import generator_for

SIZE = (40, 60)
GOOD = [[2, 2], [20, 2], [20, 20]]


def photo(folder, name, size=SIZE):
    cv2.imwrite(str(folder / f"{name}.png"), np.full((*size, 3), 90, np.uint8))


def labelme(folder, name, points=GOOD, **more):
    shape = {"label": "cup", "points": points, "shape_type": "polygon"}
    (folder / f"{name}.json").write_text(json.dumps({"shapes": [shape], **more}))


@pytest.fixture
def folder(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    for name in "abc":
        photo(own, name)
        labelme(own, name)
    return own


@pytest.fixture
def data(tmp_path):
    return DataFolder(tmp_path, tmp_path / "index")


def training(folder, data):
    return Custom(folder, data.index, max_questions=2, max_per_question=1)


def outcome(source, data, workers=0):
    return check_records(source, data.index, name="custom", workers=workers)


def test_whole_records_are_kept_as_they_are(folder, data):
    source = training(folder, data)
    assert isinstance(source, Checkable)
    found = outcome(source, data)
    assert (found.count, found.faults, found.empty) == (3, {}, ())
    assert checked(source, data, name="custom", workers=0, most=0) is source


FAULTS = {
    "another size": lambda f: labelme(f, "b", imageHeight=10, imageWidth=10),
    "outside the image": lambda f: labelme(f, "b", [[200, 200], [210, 200], [210, 210]]),
    "image cut in its header": lambda f: (f / "b.png").write_bytes((f / "b.png").read_bytes()[:20]),
    "no image": lambda f: (f / "b.png").write_bytes(b"<!DOCTYPE html>"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_record_that_cannot_be_used_is_found_before_the_run(folder, data, kind, capsys):
    FAULTS[kind](folder)
    for source in (training(folder, data), CustomBenchmark(folder, data.index)):
        with pytest.raises(DataError, match=r"custom: 1 of 3 records cannot be used: .*b\.(json|png)"):
            checked(source, data, name="custom", workers=0, most=0)
    left = checked(training(folder, data), data, name="custom", workers=0, most=0.5)
    assert len(left) == 2
    assert "1 of 3 records cannot be used" in capsys.readouterr().err
    records = {left.training_sample(index, generator_for(0, index)).record for index in range(2)}
    assert {os.path.basename(record) for record in records} == {"a.json", "c.json"}


def coco(folder, segmentations):
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 40, "width": 60} for n in range(len(segmentations))],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "tree"}],
        "annotations": [
            {"id": 10 * n + c, "image_id": n, "category_id": c, "segmentation": segmentation, "iscrowd": 0}
            for n, parts in enumerate(segmentations)
            for c, segmentation in enumerate(parts, 1)
        ],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    for n in range(len(segmentations)):
        photo(folder, str(n))


def test_an_image_in_which_nothing_can_be_asked_for_is_left_out_and_said(tmp_path, data, capsys):
    square = [[2, 2, 20, 2, 20, 20]]
    coco(tmp_path, [[square], [[]], [[], square]])
    benchmark = CustomBenchmark(tmp_path, data.index)
    found = outcome(benchmark, data)
    assert (found.faults, found.empty) == ({}, (1,))
    left = checked(benchmark, data, name="custom", workers=0, most=0)
    assert "1 of 3 images are left out: no pixel belongs" in capsys.readouterr().out
    texts = [question.text for n in range(2) for question in left.evaluation_sample(n, protocol="forced").questions]
    assert texts == ["cup", "tree"]


def test_nothing_left_is_refused(tmp_path, data):
    coco(tmp_path, [[[]], [[]]])
    with pytest.raises(DataError, match="no record is left"):
        checked(CustomBenchmark(tmp_path, data.index), data, name="custom", workers=0, most=0)


def test_an_outcome_is_kept_until_a_file_changes(folder, data, monkeypatch):
    outcome(training(folder, data), data)
    calls, original = [], checking._check_all
    monkeypatch.setattr(checking, "_check_all", lambda *arguments: calls.append(1) or original(*arguments))
    outcome(training(folder, data), data)
    assert calls == []
    labelme(folder, "b", [[200, 200], [210, 200], [210, 210]])
    assert outcome(training(folder, data), data).faults.keys() == {1}
    assert outcome(training(folder, data), data).faults.keys() == {1}
    assert calls == [1]
    photo(folder, "b", (300, 300))  # the polygon is inside now
    assert not outcome(training(folder, data), data).faults
    assert calls == [1, 1]


@pytest.mark.parametrize("damage", [b"", b"[]", b"\0" * 40, b"0" * 32 + b"\n[3,[],[]]"])
def test_a_damaged_outcome_is_made_again(folder, data, damage):
    labelme(folder, "b", [[200, 200], [210, 200], [210, 210]])
    first = outcome(training(folder, data), data)
    (kept,) = (path for path in (data.index / "checked").iterdir() if path.suffix != ".lock")
    kept.write_bytes(damage)
    assert outcome(training(folder, data), data) == first


def test_where_nothing_can_be_kept_records_are_checked_all_the_same(folder, tmp_path):
    (tmp_path / "file").write_text("")
    data = DataFolder(tmp_path, tmp_path / "file")
    labelme(folder, "b", [[200, 200], [210, 200], [210, 210]])
    assert outcome(CustomBenchmark(folder, tmp_path / "index"), data).faults.keys() == {1}


def test_several_processes_find_what_one_finds(tmp_path, data):
    own = tmp_path / "many"
    own.mkdir()
    for number in range(200):
        photo(own, f"{number:03d}")
        labelme(own, f"{number:03d}", GOOD if number % 50 else [[200, 200], [210, 200], [210, 210]])
    several = outcome(training(own, data), data, workers=2)
    shutil.rmtree(data.index / "checked")
    assert several == outcome(training(own, data), data)
    assert list(several.faults) == [0, 50, 100, 150]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, counts={"train": 3, "val": 3, "test": 3}, seed=0)
    return root


def spoil(root, split, **changes):
    path = sorted((root / "reason_seg" / "ReasonSeg" / split).glob("*.json"))[1]
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def test_reason_seg_is_checked_for_training_and_evaluation(scenes, tmp_path):
    root = shutil.copytree(scenes, tmp_path / "scenes")
    data = data_folder(str(root), str(tmp_path / "index"))
    assert not outcome(ReasonSeg(root, "val"), data).faults
    spoil(root, "val", imageHeight=3, imageWidth=3)
    with pytest.raises(DataError, match=r'ReasonSeg\|val: 1 of 3 records cannot be used: .*"imageHeight"'):
        open_benchmarks("ReasonSeg|test||ReasonSeg|val", data, None, workers=0)
    path = spoil(root, "train", shapes=[])
    assert list(outcome(ReasonSegTraining(root, ("train",)), data).faults.values()) == [
        f"{path}: no pixel belongs to a target, so there is nothing to learn; add a polygon"
    ]
    # Asked about in an evaluation all the same: the right answer is that there is none.
    assert not outcome(ReasonSeg(root, "train"), data).faults


def test_records_left_out_are_the_named_ones(scenes):
    benchmark, source = ReasonSeg(scenes, "val"), ReasonSegTraining(scenes, ("val",))
    assert [benchmark.without([1]).files(n) for n in range(2)] == [benchmark.files(n) for n in (0, 2)]
    assert [source.without([0, 2]).files(0)] == [source.files(1)]
    assert (len(benchmark), len(source)) == (3, 3)
