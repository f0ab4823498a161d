"""MUSE: all questions and all records, slots in the order of the targets, fixed prompts in evaluation."""

import json
import pickle

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dataset.families.muse import Muse, MuseBenchmark
from dataset.readers.folder import DataFolder
from dataset.sample import TargetSlot
from utils.errors import DataError
from utils.seeding import generator_for

HEIGHT, WIDTH = 40, 60
LEFT, RIGHT = [4, 4, 20, 4, 20, 30, 4, 30], [40, 4, 50, 4, 50, 30, 40, 30]
S, T, U = (TargetSlot(number) for number in range(3))


def target(name="mug", rephrased="white mug, 左", segmentation=(LEFT,)):
    return {
        "category_name": name,
        "rephrased_name": rephrased,
        "bbox": [4, 4, 16, 26],
        "segmentation": list(segmentation) if isinstance(segmentation, tuple) else segmentation,
    }


MUG, TRAY = target(), target("tray", "tray {x}", (RIGHT,))
GOOD = {
    "file_name": "COCO_train2014_000000000123.jpg",
    "height": HEIGHT,
    "width": WIDTH,
    "ann_list": [MUG, TRAY],
    "questions": ["What can hold coffee here? ☕", "What carries {it}?"],
    "answers": [[MUG], [TRAY, MUG]],
    "text_answers": ["Use the white mug {seg}.", None],
}
BY_URL = {key: value for key, value in GOOD.items() if key != "file_name"}


def one(*answers, **change):
    """A record with one question."""
    return {**GOOD, "questions": ["What is it?"], "answers": [list(answers)], "text_answers": None, **change}


@pytest.fixture
def data(tmp_path):
    for folder, name in [("train2014", GOOD["file_name"]), ("train2017", "5.jpg"), ("val2017", "6.jpg")]:
        path = tmp_path / "refer_seg" / "images" / "mscoco" / "images" / folder
        path.mkdir(parents=True)
        cv2.imwrite(str(path / name), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    (tmp_path / "multi_reason_seg" / "MultiReasonSeg").mkdir(parents=True)
    return DataFolder(tmp_path, tmp_path / "index")


def write(data, split, records):
    content = records if isinstance(records, bytes) else json.dumps(records, ensure_ascii=False).encode()
    (data.root / "multi_reason_seg" / "MultiReasonSeg" / f"MUSE_{split}.json").write_bytes(content)


def training(data, *records, **options):
    write(data, "train", list(records))
    return Muse(data, **options)


def drawn(data, record, seed=0, **options):
    return training(data, record, **options).training_sample(0, generator_for(seed))


def benchmark(data, *records, split="val"):
    write(data, split, list(records))
    return MuseBenchmark(data, f"MultiReasonSeg|{split}")


def turns(sample):
    return [(turn.question, turn.answer) for conversation in sample.conversations for turn in conversation.turns]


def slots(answer):
    return [part for part in answer if not isinstance(part, str)]


def words(answer):
    return " ".join(part for part in answer if isinstance(part, str))


def left_edges(sample):
    return [int(np.nonzero(mask)[1].min()) if mask.any() else None for mask in sample.masks]


def test_every_question_is_a_conversation_with_its_targets_in_order(data):
    for seed in range(20):
        sample = drawn(data, GOOD, seed)
        asked = sorted(turns(sample), key=lambda turn: len(slots(turn[1])))
        assert [len(slots(answer)) for _, answer in asked] == [1, 2]
        for (question, _), text in zip(asked, GOOD["questions"], strict=True):
            assert text in question and len(question) > len(text)
        assert asked[0][1] == ("Use the white mug", slots(asked[0][1])[0], ".")
        order = [slot.mask for _, answer in turns(sample) for slot in slots(answer)]
        assert order == [0, 1, 2] and sample.masks.dtype == bool
        (mug,), (tray, second_mug) = ([left_edges(sample)[s.mask] for s in slots(answer)] for _, answer in asked)
        assert mug == second_mug == 4 and tray == 40


def test_targets_are_called_by_either_name(data):
    source = training(data, one(MUG, TRAY))
    spoken = [words(turns(source.training_sample(0, generator_for(seed)))[0][1]) for seed in range(300)]
    rephrased = sum("white mug, 左" in text for text in spoken)
    category = sum("mug" in text and "white mug" not in text for text in spoken)
    assert rephrased > 5 * category > 0
    assert any("tray {x}" in text for text in spoken)
    for missing in ("rephrased_name", "category_name"):
        for value in (None, " "):
            record = one({**MUG, missing: value}, TRAY)
            assert slots(turns(drawn(data, record))[0][1]) == [S, T]


def test_a_text_answer_that_does_not_fit_its_targets_is_left_out(data):
    for text in ("Only {seg}.", "{seg} and {seg} and {seg}", "none", "  "):
        record = one(MUG, TRAY, text_answers=[text])
        for sample in (drawn(data, record), benchmark(data, record).evaluation_sample(0, protocol="forced")):
            ((_, answer),) = turns(sample)
            assert slots(answer) == [S, T] and "Only" not in words(answer) and "none" not in words(answer)


def test_questions_can_be_capped(data):
    record = {**GOOD, "questions": ["One?", "Two?", "Three?", "Four?"], "answers": [[MUG]] * 4, "text_answers": None}
    seen = set()
    for seed in range(30):
        sample = drawn(data, record, seed, max_questions=2)
        assert len(sample.conversations) == len(sample.masks) == 2
        seen |= {text for text in record["questions"] for question, _ in turns(sample) if text in question}
    assert seen == set(record["questions"])
    assert len(drawn(data, record).conversations) == 4


@pytest.mark.parametrize(
    ("change", "folder"),
    [
        ({"coco_url": "http://images.cocodataset.org/train2017/5.jpg"}, "train2017"),
        ({"coco_url": "http://images.cocodataset.org/val2017/6.jpg"}, "val2017"),
        ({"coco_url": "http://images.cocodataset.org/val2017/6.jpg", "file_name": None}, "val2017"),
        ({"coco_url": "http://images.cocodataset.org/val2017/6.jpg", "file_name": GOOD["file_name"]}, "train2014"),
    ],
)
def test_where_the_image_is(data, change, folder):
    root = data.root / "refer_seg" / "images" / "mscoco" / "images"
    for number, name in enumerate(("train2014", "train2017", "val2017")):
        (path,) = (root / name).iterdir()
        cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), 80 * number, np.uint8))
    sample = drawn(data, {**BY_URL, **change})
    assert abs(int(sample.image[0, 0, 0]) - 80 * ["train2014", "train2017", "val2017"].index(folder)) < 3


def compressed(rows):
    encoded = coco_mask.encode(np.asfortranarray(rows.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def test_each_form_of_segmentation_gives_the_same_mask(data):
    rows = np.zeros((HEIGHT, WIDTH), bool)
    rows[4:30, 4:20] = True
    runs = {"size": [HEIGHT, WIDTH], "counts": [4 * HEIGHT + 4, 26, *[14, 26] * 15, 40 * HEIGHT + 10]}
    forms = [[], [LEFT], [LEFT, LEFT], [compressed(rows)], runs, compressed(rows)]
    sample = drawn(data, one(*[target(segmentation=form) for form in forms]))
    assert not sample.masks[0].any() and all(np.array_equal(mask, rows) for mask in sample.masks[1:])
    assert slots(turns(sample)[0][1]) == [TargetSlot(number) for number in range(6)]


def test_a_draw_depends_on_its_generator_alone(data):
    source = training(data, GOOD, one(MUG, TRAY))
    other = pickle.loads(pickle.dumps(source))
    for index in (0, 1):
        first, again = (s.training_sample(index, generator_for(5)) for s in (source, other))
        assert first.conversations == again.conversations and np.array_equal(first.masks, again.masks)
    drawn = {str(turns(source.training_sample(1, generator_for(seed)))) for seed in range(9)}
    assert len(drawn) > 5


def test_the_benchmark_has_every_record_and_fixed_prompts(data):
    records = [one(MUG, questions=[f"Question {number}?"]) for number in range(85)]
    val = benchmark(data, *records)
    assert [val.evaluation_sample(n, protocol="generate").query for n in range(len(val))] == [
        f"Question {number}?" for number in range(85)
    ]
    write(data, "test_less", records[:3])
    write(data, "test_many", [GOOD, *records[:4]])
    both = MuseBenchmark(data, "MultiReasonSeg|test")
    parts = [MuseBenchmark(data, f"MultiReasonSeg|{split}") for split in ("test_less", "test_many")]
    assert len(both) == 8
    expected = [part.evaluation_sample(n, protocol="forced") for part in parts for n in range(len(part))]
    names = set()
    for index, sample in enumerate(expected):
        again = both.evaluation_sample(index, protocol="forced")
        assert again.conversations == sample.conversations and again.record == sample.record
        names.add(again.record)
    assert len(names) == 8 and (val.scoring, val.protocols) == ("muse", ("forced", "generate"))


def test_the_two_protocols(data):
    val = benchmark(data, GOOD)
    forced, free = (val.evaluation_sample(0, protocol=protocol) for protocol in ("forced", "generate"))
    prompts = [f"{text} Please output segmentation mask." for text in GOOD["questions"]]
    answers = [("Use the white mug", S, "."), ("tray {x}:", T, ", white mug, 左:", U, ".")]
    assert turns(forced) == list(zip(prompts, answers, strict=True))
    assert turns(free) == [(prompt, None) for prompt in prompts]
    for sample in (forced, free):
        assert [question.text for question in sample.questions] == GOOD["questions"]
        assert [question.targets for question in sample.questions] == [(0,), (1, 2)]
        assert left_edges(sample) == [4, 40, 4]


def test_a_question_without_a_target_has_one_slot_and_no_truth(data):
    record = {**GOOD, "answers": [[], [MUG]], "text_answers": ["There is none.", None]}
    sample = benchmark(data, record).evaluation_sample(0, protocol="forced")
    assert [question.targets for question in sample.questions] == [(), (1,)]
    assert [slots(answer) for _, answer in turns(sample)] == [[S], [T]]
    assert left_edges(sample) == [None, 4]
    trained = drawn(data, record)
    assert len(trained.masks) == 1 and ("There is none.",) in [answer for _, answer in turns(trained)]
    with pytest.raises(DataError, match="question 0 has neither a target nor a text answer"):
        drawn(data, {**record, "text_answers": None})


def test_a_target_without_a_pixel_is_scored_but_not_trained_on_alone(data):
    empty = target(segmentation=[])
    sample = benchmark(data, one(empty)).evaluation_sample(0, protocol="forced")
    assert sample.questions[0].targets == (0,) and not sample.masks.any()
    with pytest.raises(DataError, match="no pixel belongs to one of its targets"):
        drawn(data, one(empty))
    assert len(drawn(data, one(empty, MUG)).masks) == 2


MALFORMED = [
    ({"ann_list": []}, "must not be empty"),
    ({"questions": [], "answers": [], "text_answers": []}, "must not be empty"),
    ({"questions": ["One?"]}, "it must have an answer"),
    ({"text_answers": ["One {seg}."]}, "it must have an answer"),
    ({"text_answers": "ab"}, "it must have an answer"),
    ({"text_answers": [5, None]}, 'question 0: "text answer" is 5'),
    ({"answers": None}, '"answers" is None: it must be a list'),
    ({"answers": [[MUG], MUG]}, 'question 1: "answers" is'),
    ({"answers": [[MUG], ["mug"]]}, "question 1, target 0 is 'mug'"),
    ({"answers": [[MUG], [{**MUG, "segmentation": "abc"}]]}, "question 1, target 0 is"),
    ({"answers": [[MUG], [{**MUG, "category_name": None, "rephrased_name": ""}]]}, "target 0 has no name"),
    ({"answers": [[MUG], [{**MUG, "category_name": 4}]]}, '"category_name" is 4'),
    ({"questions": ["One?", " "]}, '"question" is empty'),
    ({"questions": ["One?", 2]}, '"question" is 2'),
    ({"height": None}, '"height" is None'),
    ({"width": 0}, "both sides must be at least 1"),
    ({"file_name": 7}, '"file_name" is 7'),
    ({"file_name": "../../x.jpg"}, "must be a file name without folders"),
    ({"file_name": ".."}, "must be a file name without folders"),
    ({"file_name": None}, 'no "coco_url"'),
]
UNREADABLE = [
    ([[4, 4, 20, 4, 20]], "a polygon ring has 5 entries"),
    ([[4, 4, 20, 4, "x", 3]], "a polygon ring has 6 entries"),
    ({"size": [9, 9], "counts": [81]}, r"a run-length mask has size \[9, 9\]"),
    ({"counts": [81]}, "a run-length mask has size None"),
    ([[LEFT]], "pairs of finite numbers"),
]


@pytest.mark.parametrize(("change", "sentence"), MALFORMED)
def test_a_malformed_record_is_named(data, change, sentence):
    record = {**GOOD, **change}
    source = training(data, record, GOOD)
    with pytest.raises(DataError, match=f"record 0.*{sentence}"):
        source.training_sample(0, generator_for(0))
    assert source.training_sample(1, generator_for(0)).conversations
    with pytest.raises(DataError, match=f"1 of 2 records are malformed: record 0.*{sentence}"):
        benchmark(data, record, GOOD)


@pytest.mark.parametrize("key", ["file_name", "height", "width", "ann_list", "questions", "answers"])
def test_a_missing_key_is_named(data, key):
    record = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(DataError, match=f'record 0 has no "{key if key != "file_name" else "coco_url"}"'):
        drawn(data, record)


@pytest.mark.parametrize(("segmentation", "sentence"), UNREADABLE)
def test_a_mask_that_cannot_be_decoded(data, segmentation, sentence):
    record = one(MUG, target(segmentation=segmentation))
    with pytest.raises(DataError, match=sentence):
        drawn(data, record)
    with pytest.raises(DataError, match=f"1 of 1 records are malformed: record 0, question 0.*{sentence}"):
        benchmark(data, record)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is an empty file"),
        (json.dumps([GOOD]).encode()[:-20], "not valid JSON"),
        (b"{}", "holds no records"),
        (b'[{"height": 1}, 4', "not valid JSON"),
    ],
)
def test_an_unusable_file_is_named(data, content, sentence):
    write(data, "train", content)
    write(data, "val", content)
    for opening in (lambda: Muse(data), lambda: MuseBenchmark(data, "MultiReasonSeg|val")):
        with pytest.raises(DataError, match=sentence):
            opening()


def test_images_are_looked_for_at_the_start(data):
    records = [one(MUG, file_name=name) for name in (GOOD["file_name"], "missing.jpg")]
    for opening in (lambda: training(data, *records), lambda: benchmark(data, *records)):
        with pytest.raises(FileNotFoundError, match=r"1 of 2 images looked for are not in .*train2014/missing\.jpg"):
            opening()


def test_every_image_of_a_benchmark_is_looked_for(data):
    records = [one(MUG)] * 402
    records[1] = one(MUG, file_name="missing.jpg")
    with pytest.raises(FileNotFoundError, match=r"1 of 402 images.*missing\.jpg"):
        benchmark(data, *records)


def test_an_image_must_have_the_size_of_its_masks(data):
    record = one(MUG, height=HEIGHT + 1)
    with pytest.raises(DataError, match="has 40 x 60 pixels, but the record says 41 x 60"):
        drawn(data, record)
    with pytest.raises(DataError, match="has 40 x 60 pixels, but the record says 41 x 60"):
        benchmark(data, record).evaluation_sample(0, protocol="generate")


def test_unknown_names(data):
    for name in ("MultiReasonSeg|train", "MultiReasonSeg", "ReasonSeg|val"):
        with pytest.raises(DataError, match=r"no such benchmark; allowed: MultiReasonSeg\|val, "):
            MuseBenchmark(data, name)
    with pytest.raises(FileNotFoundError, match=r"MUSE_train\.json does not exist"):
        Muse(data)
