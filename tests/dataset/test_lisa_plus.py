"""LISA++: markup of every form, polygons of every form, slots that agree with masks, bad records named."""

import copy
import json
import pickle

import cv2
import numpy as np
import pytest

from dataset.families.lisa_markup import Mark, dialogue, parse, plain, with_slots
from dataset.families.lisa_plus import KINDS, LisaPlus, polygons
from dataset.readers.checks import MalformedError
from dataset.readers.folder import DataFolder
from dataset.sample import TargetSlot
from utils.errors import DataError
from utils.seeding import generator_for

SQUARE = [[4, 4], [30, 4], [30, 30], [4, 30]]
LATER = [[40, 4], [50, 4], [50, 30], [40, 30]]
OUTSIDE = [[400, 400], [450, 400], [450, 450]]
INFO = {
    "17": {"label name": "cup", "points": SQUARE},
    "18": {"label name": "bowl", "polygon": [LATER, OUTSIDE]},
    "19": {"label name": "fork", "points": OUTSIDE},
    "20": {"points": [4, 4, 30, 4, 30, 30]},
    "21": {"label name": "spoon"},
    "22": [[SQUARE[0], SQUARE[1], SQUARE[2]], LATER],
}
GOOD = {
    "instance_seg": {
        "img_path": "one.jpg",
        "English Question": "Which [tray <22>] is there?",
        "ID": ["18", 17],
        "points": INFO,
    },
    "cot": {
        "image_path": "one.jpg",
        "English Question": "What holds tea?",
        "English Answer": "Tea 茶 goes [into a cup, or mug] 《17|cup》.",
        "info": INFO,
    },
    "conversations": {
        "img_pth": "one.jpg",
        "output": "<person>: What is on the desk? <robot>: A cup 《17|cup》 and a 《19|fork》. "
        "<person>: Beside the <17|cup>?\n<robot>: The [bowl <18>]. "
        "<person>: Any lamp? <robot>: No. <person>: Any more?",
        "info": INFO,
    },
    "caption": {
        "image_path": "one.jpg",
        "English Question": "Describe the <17|cup>.",
        "English Answer": "We see [cup <17>, bowl <18>, fork <19>] and a <22|tray>.",
        "info": INFO,
    },
}
KEYS = [(kind, key) for kind, record in GOOD.items() for key in record]
S, T = TargetSlot(0), TargetSlot(1)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "refer_seg" / "images" / "mscoco" / "images" / "train2017"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "one.jpg"), np.full((40, 60, 3), 90, np.uint8))
    (tmp_path / "reason_seg_plus").mkdir()
    return DataFolder(tmp_path, tmp_path / "index")


def source(data, kind, *records, max_questions=3):
    content = records[0] if isinstance(records[0], bytes) else json.dumps(records, ensure_ascii=False).encode()
    (data.root / "reason_seg_plus" / KINDS[kind].file).write_bytes(content)
    return LisaPlus(data, kind, max_questions=max_questions)


def drawn(data, kind, change=None, seed=0, **options):
    return source(data, kind, {**GOOD[kind], **(change or {})}, **options).training_sample(0, generator_for(seed))


def turns(sample):
    (conversation,) = sample.conversations
    return [(turn.question, turn.answer) for turn in conversation.turns]


def box(mask):
    rows, columns = np.nonzero(mask)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a 《1|cup》.", ["a ", Mark("1", "cup"), "."]),
        ("a <1|red cup>.", ["a ", Mark("1", "red cup"), "."]),
        ("[cup <1>]", [Mark("1", "cup")]),
        ("[<1|cup>]", [Mark("1", "cup")]),
        ("[《1|cup》]", [Mark("1", "cup")]),
        ("the [1|cup]!", ["the ", Mark("1", "cup"), "!"]),
        ("[the cup <1>, bowl <2> and plate <3>]", [Mark("1", "the cup"), Mark("2", "bowl"), Mark("3", "plate")]),
        (
            "[1|cup, 2|sand and gravel and 3|plate]",
            [Mark("1", "cup"), Mark("2", "sand and gravel"), Mark("3", "plate")],
        ),
        ("[<1|cup>; <2|bowl>]", [Mark("1", "cup"), Mark("2", "bowl")]),
        ("[《1|cup》《2|bowl》]", [Mark("1", "cup"), Mark("2", "bowl")]),
        ("[cup <1>, <2|bowl>]", [Mark("1", "cup"), Mark("2", "bowl")]),
        ("[1|杯子]", [Mark("1", "杯子")]),
        ("《1|》", [Mark("1", "")]),
    ],
)
def test_each_form_of_markup(text, expected):
    pieces = [piece for piece in parse(text) if piece not in (", ", " and ")]
    assert pieces == expected


@pytest.mark.parametrize(
    "text", ["[sic]", "as [12] says", "a [b [c] d", "<b>bold</b>", "3 < 4 > 2", "a|b", "《杯》", ""]
)
def test_ordinary_text_is_kept(text):
    assert "".join(parse(text)) == text


def test_a_list_in_brackets_becomes_a_list_of_slots():
    slots = {"1": S, "2": T}
    assert with_slots(parse("See [1|a, 2|b, 1|c]."), slots) == ("See", S, ",", T, "and", S, ".")
    assert with_slots(parse("See [<1|a><2|b>]."), slots) == ("See", S, "and", T, ".")
    assert with_slots(parse("See [the a <1> on the table, <2|b>]."), slots) == ("See", S, "on the table,", T, ".")
    assert with_slots(parse("See [1|a and 3|c] [here]."), slots) == ("See", S, "and c [here].")


def test_an_object_without_a_slot_leaves_its_label_once():
    assert with_slots(parse("A red lamp 《3|lamp》 and a 《3|clock》."), {}) == ("A red lamp and a clock.",)
    assert with_slots(parse("Clamp 《3|lamp》《3|》 here"), {}) == ("Clamp lamp here",)
    assert plain("Is the <1|cup> on the [table <2>]?") == "Is the cup on the table?"


def test_dialogues():
    assert dialogue("<person>: a? <Robot>: b. <person>: c?", "r") == [("a?", "b.")]
    assert dialogue("<person>: a?<robot> : b.\n<person>: c? <robot>: ", "r") == [("a?", "b.")]
    for text, sentence in [
        ("no turns", "take turns"),
        ("", "no answered question"),
        ("<person>: a?", "no answered question"),
        ("<robot>: a <person>: b?", "take turns"),
        ("<person>: a? <person>: b? <robot>: c", "take turns"),
        ("<person>: <robot>: b. <person>: c? <robot>: d", "is empty"),
    ]:
        with pytest.raises(MalformedError, match=sentence):
            dialogue(text, "r")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"polygon": [[0, 0], [9, 0], [9, 9.5]]}, [[0, 0, 9, 0, 9, 9.5]]),
        ({"points": [[0, 0], [9, 0], [9, 9]]}, [[0, 0, 9, 0, 9, 9]]),
        ([[0, 0], [9, 0], [9, 9]], [[0, 0, 9, 0, 9, 9]]),
        ([0, 0, 9, 0, 9, 9], [[0, 0, 9, 0, 9, 9]]),
        ([[[0, 0], [9, 0], [9, 9]], [[1, 1], [2, 1], [2, 2], [1, 2]]], [[0, 0, 9, 0, 9, 9], [1, 1, 2, 1, 2, 2, 1, 2]]),
        ([[[0, 0], [9, 0], [9, 9]], [[1, 1], [2, 1], [2, 2]]], [[0, 0, 9, 0, 9, 9], [1, 1, 2, 1, 2, 2]]),
        ([[[0, 0], [9, 0], [9, 9]], [[1, 1]], []], [[0, 0, 9, 0, 9, 9]]),
        ([], []),
        ({}, []),
        (None, []),
    ],
)
def test_each_form_of_polygons(value, expected):
    before = copy.deepcopy(value)
    assert polygons(value, "r") == expected and value == before


@pytest.mark.parametrize(
    "value",
    [
        "text",
        3,
        [1, 2, 3],
        [[1, 2, 3]],
        [[1, "2"]],
        [[1, True]],
        [[0, 0], [[1, 1]]],
        [[0, float("inf")]],
        [[[0, 0], [1, 0, 2]]],
        {"points": "text"},
        {"polygon": {"counts": "abc", "size": [4, 4]}},
    ],
)
def test_other_masks_are_malformed(value):
    with pytest.raises(MalformedError, match="r: its mask is"):
        polygons(value, "r")


def test_rings_of_unequal_and_equal_length_are_united(data):
    info = {"17": {"label name": "cup", "points": [SQUARE, LATER[:3]]}, "18": [SQUARE, LATER, SQUARE]}
    sample = drawn(data, "instance_seg", {"points": info, "ID": ["17", "18"]})
    first, second = sample.masks
    assert first[15, 15] and first[6, 46] and not first[28, 42] and not first[15, 35]
    assert second[15, 15] and second[28, 42] and not second[15, 35]
    assert sample.masks.dtype == bool and second.sum() == (30 - 4) * 26 + (50 - 40) * 26


def test_instances_are_answered_by_their_labels(data):
    for seed in range(30):
        sample = drawn(data, "instance_seg", seed=seed)
        ((question, answer),) = turns(sample)
        assert question == "Which tray is there?"
        assert [part for part in answer if isinstance(part, TargetSlot)] == [S, T]
        assert [box(mask) for mask in sample.masks] == [[40, 4, 50, 30], [4, 4, 30, 30]]
    words = {
        "".join(p for p in turns(drawn(data, "instance_seg", seed=s))[0][1] if isinstance(p, str)) for s in range(9)
    }
    assert len(words) > 1 and any("bowl" in text and "cup" in text for text in words)


def test_instances_without_label_or_mask(data):
    sample = drawn(data, "instance_seg", {"ID": ["20", "21", "19", "99", "17", "17"]}, seed=1)
    ((_, answer),) = turns(sample)
    assert len(sample.masks) == sum(isinstance(part, TargetSlot) for part in answer) == 2
    spoken = {str(turns(drawn(data, "instance_seg", {"ID": ["20"]}, seed=seed))[0][1]) for seed in range(20)}
    assert any("object" in text for text in spoken)


def test_a_reasoned_answer_keeps_its_brackets_and_is_asked_for(data):
    sample = drawn(data, "cot")
    ((question, answer),) = turns(sample)
    assert answer == ("Tea 茶 goes [into a cup, or mug]", S, ".")
    assert "What holds tea?" in question and question != "What holds tea?"
    asked = drawn(data, "cot", {"English Question": "Segment what holds tea."})
    assert turns(asked)[0][0] == "Segment what holds tea."


def test_a_caption_names_objects_in_lists(data):
    sample = drawn(data, "caption")
    assert turns(sample) == [("Describe the cup.", ("We see", S, ",", T, "and fork and a", TargetSlot(2), "."))]
    assert [box(mask) for mask in sample.masks] == [[4, 4, 30, 30], [40, 4, 50, 30], [5, 4, 50, 30]]


def test_an_object_named_twice_has_one_mask(data):
    sample = drawn(data, "caption", {"English Answer": "A <17|cup>, the <17|cup>, and a <18|bowl>."})
    assert turns(sample)[0][1] == ("A", S, ", the", S, ", and a", T, ".") and len(sample.masks) == 2


def test_a_dialogue_keeps_its_history_and_asks_without_slots(data):
    expected = [
        ("What is on the desk?", ("A cup", S, "and a fork.")),
        ("Beside the cup?", ("The", T, ".")),
        ("Any lamp?", ("No.",)),
    ]
    for most in (1, 2, 3, 9):
        sample = drawn(data, "conversations", max_questions=most)
        assert turns(sample) == expected[:most] and len(sample.masks) == min(most, 2)


@pytest.mark.parametrize("kind", list(KINDS))
def test_slots_are_the_masks_and_a_draw_depends_on_its_generator(data, kind):
    one = source(data, kind, GOOD[kind])
    other = pickle.loads(pickle.dumps(one))
    for seed in range(20):
        sample, again = (s.training_sample(0, generator_for(seed)) for s in (one, other))
        assert sample.conversations == again.conversations and np.array_equal(sample.masks, again.masks)
        assert [slot.mask for slot in sample.conversations[0].targets] == list(range(len(sample.masks)))
        assert sample.masks.any(axis=(1, 2)).all()


@pytest.mark.parametrize(("kind", "key"), KEYS)
def test_a_missing_key_or_wrong_type_is_named(data, kind, key):
    without = {name: value for name, value in GOOD[kind].items() if name != key}
    wrong = {**GOOD[kind], key: 3.5}
    records = source(data, kind, without, wrong, GOOD[kind])
    for index, sentence in ((0, f'record 0 has no "{key}"'), (1, f'record 1: "{key}" is 3.5')):
        with pytest.raises(DataError, match=sentence):
            records.training_sample(index, generator_for(0))
    assert records.training_sample(2, generator_for(0)).conversations


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        ("instance_seg", {"ID": []}, "no object that its answer names has a mask"),
        ("instance_seg", {"ID": ["21", "99"]}, "no object that its answer names has a mask"),
        ("instance_seg", {"ID": ["19"]}, "no mask of it has a pixel inside its image of 40 x 60"),
        ("instance_seg", {"points": {"17": [[1, 2, 3]]}, "ID": ["17"]}, "object 17: its mask is"),
        ("instance_seg", {"points": {"17": [1, 2, 3]}, "ID": ["17"]}, "object 17: its mask is"),
        ("cot", {"English Answer": "No object at all [sic]."}, "no object that its answer names has a mask"),
        ("cot", {"English Answer": " "}, '"English Answer" is empty'),
        ("caption", {"English Answer": "A <19|fork>."}, "no mask of it has a pixel"),
        ("caption", {"image_path": "../../x.jpg"}, "leads out of the image folder"),
        ("conversations", {"output": "<robot>: Hello."}, "take turns"),
        (
            "conversations",
            {"output": "<person>: Where is <17|cup>? <robot>: There."},
            "no object that its answer names",
        ),
    ],
)
def test_a_malformed_record_is_named(data, kind, change, sentence):
    with pytest.raises(DataError, match=sentence) as raised:
        drawn(data, kind, change)
    assert "record 0" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "an empty file"), (json.dumps([GOOD["cot"]]).encode()[:-9], "not valid JSON"), (b"{}", "holds no records")],
)
def test_an_unusable_file_is_named(data, content, sentence):
    with pytest.raises(DataError, match=sentence):
        source(data, "cot", content)


def test_what_is_missing_is_named_at_the_start(data):
    with pytest.raises(FileNotFoundError, match=r"LISA_Plus_COT\.json does not exist; the hub calls it data\.json"):
        LisaPlus(data, "cot", max_questions=3)
    with pytest.raises(DataError, match=r"no such kind of LISA.*instance_seg, cot, conversations, caption"):
        LisaPlus(data, "panoptic", max_questions=3)
    with pytest.raises(FileNotFoundError, match=r"two\.jpg"):
        source(data, "cot", {**GOOD["cot"], "image_path": "two.jpg"})
    with pytest.raises(DataError, match="not an image"):
        (data.root / "refer_seg/images/mscoco/images/train2017/two.jpg").write_bytes(b"")
        drawn(data, "cot", {"image_path": "two.jpg"})
