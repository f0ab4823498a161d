"""ReasonSeg reader: the real files, every form of bad file, the same draw for the same seed."""

import json
import shutil

import cv2
import numpy as np
import pytest

from dataset.families.reason_seg import ReasonSeg, ReasonSegTraining, read_annotation
from utils.errors import DataError
from utils.seeding import generator_for

GOOD = {
    "text": ["the dark square", "the square"],
    "is_sentence": False,
    "shapes": [{"label": "target", "points": [[5, 5], [20, 5], [20, 20], [5, 20]]}],
}


def write(folder, name="one", content=GOOD, image=True, encoding="utf-8"):
    folder.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode(encoding)
    (folder / f"{name}.json").write_bytes(data)
    if image:
        cv2.imwrite(str(folder / f"{name}.jpg"), np.full((40, 60, 3), 90, np.uint8))
    return folder / f"{name}.json"


@pytest.fixture
def split(tmp_path):
    return tmp_path / "reason_seg" / "ReasonSeg" / "train"


def test_the_two_real_samples(shared, split):
    split.mkdir(parents=True)
    for path in (shared / "data" / "reasonseg").glob("*_o.*"):
        shutil.copy(path, split)
    source = ReasonSeg(split.parents[2], "train")
    deer, car = source.evaluation_sample(0, protocol="forced"), source.evaluation_sample(1, protocol="generate")
    assert deer.masks.shape == (1, *deer.image.shape[:2]) and deer.masks.any() and deer.ignore.any()
    assert not (deer.masks[0] & deer.ignore).any()
    assert deer.conversations[0].turns[0].question.endswith("attracting mates? Please output segmentation mask.")
    assert car.conversations[0].turns[0].question == (
        "What is the places where the driver can observe the speed in this image? Please output segmentation mask."
    )
    assert car.conversations[0].turns[0].answer is None
    drawn = ReasonSegTraining(split.parents[2], ("train",)).training_sample(0, generator_for(0))
    assert len(drawn.conversations) == 3 and all(len(c.targets) == 1 for c in drawn.conversations)


def test_a_draw_depends_on_its_generator_alone(split):
    write(split)
    source = ReasonSegTraining(split.parents[2], ("train",))
    first, again = (source.training_sample(0, generator_for(5)) for _ in range(2))
    assert first.conversations == again.conversations


def test_cp1252(split):
    path = write(split, content={**GOOD, "text": ["the caf\u00e9 table"]}, encoding="cp1252")
    assert read_annotation(path).texts == ("the caf\u00e9 table",)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shapes": None}, '"shapes" is missing'),
        ({"text": []}, '"text" must be a list of at least one string'),
        ({"text": ["the cup", "  "]}, "holds an empty query"),
        ({"text": [3]}, '"text" must be a list'),
        (b"{not json", "not valid JSON"),
        (b"[]", "is a JSON object"),
        (b"\x81", "neither UTF-8 nor cp1252"),
    ],
)
def test_a_malformed_annotation_is_named_at_start(split, change, sentence):
    path = write(split, content=change if isinstance(change, bytes) else {**GOOD, **change})
    with pytest.raises(DataError, match=sentence) as raised:
        ReasonSegTraining(split.parents[2], ("train",))
    assert raised.value.path == str(path)


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        ([], "no pixel belongs to a target"),
        ([{"label": "flag", "points": [[1, 1], [9, 9], [1, 9]]}], "no pixel belongs to a target"),
        ([{"label": "target", "points": [[500, 500], [600, 500], [600, 600]]}], "outside the image"),
        ([{"label": "target", "points": []}], "points"),
        ([{"points": [[1, 1], [9, 9], [1, 9]]}], "label"),
    ],
)
def test_bad_shapes_are_named_when_the_sample_is_read(split, shapes, sentence):
    write(split, content={**GOOD, "shapes": shapes})
    source = ReasonSegTraining(split.parents[2], ("train",))
    with pytest.raises(DataError, match=sentence):
        source.training_sample(0, generator_for(0))


def test_missing_and_unreadable_files(split, tmp_path):
    with pytest.raises(FileNotFoundError, match="must hold reason_seg/ReasonSeg/train"):
        ReasonSegTraining(tmp_path, ("train",))
    write(split)
    (split / "one.jpg").write_bytes(b"\xff\xd8 not a picture")
    with pytest.raises(DataError, match="not an image that OpenCV can decode"):
        ReasonSegTraining(tmp_path, ("train",)).training_sample(0, generator_for(0))
    (split / "one.json").unlink()
    with pytest.raises(DataError, match=r"every \.jpg needs a \.json"):
        ReasonSegTraining(tmp_path, ("train",))
    with pytest.raises(DataError, match="no such split; allowed: train, val"):
        ReasonSeg(tmp_path, "trian")


def test_queries_of_test_are_split_by_kind(split):
    folder = split.parent / "test"
    for index in range(5):
        write(folder, f"s{index}", {**GOOD, "is_sentence": index % 2 == 0})
    sizes = [len(ReasonSeg(split.parents[2], name)) for name in ("test_longquery", "test_shortquery", "test_overall")]
    assert sizes == [3, 2, 5]


def test_explanations(split):
    write(split)
    with pytest.raises(FileNotFoundError, match="--explanatory -1"):
        ReasonSegTraining(split.parents[2], ("train",), explanatory=0.1)
    explanatory = split.parent / "explanatory"
    explanatory.mkdir()
    entries = [{"image": "one.jpg", "query": "?", "outputs": "It is dark."}]
    (explanatory / "train.json").write_text(json.dumps(entries))
    source = ReasonSegTraining(split.parents[2], ("train",), explanatory=0.3)
    kinds = set()
    for draw in range(60):
        sample = source.training_sample(0, generator_for(draw))
        answer = sample.conversations[0].turns[0].answer
        text = " ".join(part for part in answer if isinstance(part, str))
        targets = len(sample.conversations[0].targets)
        assert targets == (1 if len(sample.masks) else 0)
        kinds.add((targets, "It is dark." in text))
    assert kinds == {(1, False), (1, True), (0, True)}


def test_several_queries_of_one_image(split):
    write(split)
    other = {**GOOD, "text": ["the left"], "shapes": [{"label": "target", "points": [[30, 5], [40, 5], [40, 20]]}]}
    write(split, "one.2", other, image=False)
    benchmark = ReasonSeg(split.parents[2], "train")
    assert [benchmark.evaluation_sample(index, protocol="forced").query for index in range(2)] == [
        "the dark square",
        "the left",
    ]
    source = ReasonSegTraining(split.parents[2], ("train",), max_queries=2)
    assert len(source) == 1
    for draw in range(5):
        sample = source.training_sample(0, generator_for(draw))
        assert sorted(c.targets[0].mask for c in sample.conversations) == [0, 1]
        for conversation in sample.conversations:
            mask = sample.masks[conversation.targets[0].mask]
            assert mask[10, 10] == ("square" in conversation.turns[0].question)
    assert (
        len(
            ReasonSegTraining(split.parents[2], ("train",), max_queries=9)
            .training_sample(0, generator_for(0))
            .conversations
        )
        == 3
    )
