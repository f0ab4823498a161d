"""LLaVA-Instruct: every turn kept and supervised, every form of bad record named, little memory."""

import json
import pickle
import tracemalloc

import cv2
import numpy as np
import pytest

from dataset.families.vqa import Vqa
from dataset.prompt import PromptEncoder
from dataset.readers.folder import DataFolder
from dataset.readers.records import RecordWriter, index_list
from tests.conftest import make_registry
from utils.errors import DataError
from utils.prompt_template import VICUNA
from utils.seeding import generator_for


def turns(*values, first="human"):
    speakers = ["human", "gpt"] if first == "human" else ["gpt", "human"]
    return [{"from": speakers[place % 2], "value": value} for place, value in enumerate(values)]


GOOD = {"id": "7", "image": "one.jpg", "conversations": turns("<image>\nWas ist das? 猫?", "Eine Katze 🐈.")}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "coco" / "train2017"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "one.jpg"), np.full((40, 60, 3), 90, np.uint8))
    (tmp_path / "llava_dataset").mkdir()
    return DataFolder(tmp_path, tmp_path / "index")


def write(data, content, name="llava_instruct_150k"):
    content = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
    (data.root / "llava_dataset" / f"{name}.json").write_bytes(content)


def drawn(data, record, seed=0):
    write(data, [record])
    return Vqa(data).training_sample(0, generator_for(seed))


def said(sample):
    (conversation,) = sample.conversations
    return [(turn.question, turn.answer) for turn in conversation.turns]


def test_one_conversation_holds_all_turns(data):
    conversations = turns("Look at <image> now.", "A cup.", "Which colour?\n<image>", "Red.", "And now?")
    sample = drawn(data, {**GOOD, "conversations": conversations})
    assert said(sample) == [("Look at  now.", ("A cup.",)), ("Which colour?", ("Red.",))]
    assert sample.masks.shape == (0, 40, 60) and sample.masks.dtype == bool
    assert sample.record.endswith("llava_instruct_150k.json, record 0")
    assert said(drawn(data, GOOD)) == [("Was ist das? 猫?", ("Eine Katze 🐈.",))]


def test_a_first_turn_that_is_not_human_is_dropped(data):
    sample = drawn(data, {**GOOD, "conversations": turns("Hello.", "What is it?", "A cup.", first="gpt")})
    assert said(sample) == [("What is it?", ("A cup.",))]


def test_every_answer_is_supervised_and_nothing_else(data):
    sample = drawn(data, {**GOOD, "conversations": turns("<image>\nWhat?", "A cup.", "Colour?", "It is red.")})
    registry = make_registry()
    encoder = PromptEncoder(registry, VICUNA, image_placeholder=-200, num_image_tokens=4, max_length=512)
    branch = encoder.branch(sample.conversations[0], sample.record)
    supervised = [index for index, flag in zip(branch.ids, branch.supervised, strict=True) if flag]
    expected = [[*registry.encode_piece(text), registry.eos_id] for text in ("A cup.", "It is red.")]
    assert supervised == expected[0] + expected[1] and branch.slots == ()
    assert registry.decode(branch.ids).count("USER:") == 1  # the first one is in the prefix


def test_a_record_reads_the_same_again_and_in_another_process(data):
    write(data, [GOOD, {**GOOD, "conversations": turns("What?", "A cup.")}])
    source = Vqa(data)
    other = pickle.loads(pickle.dumps(source))
    for index in (0, 1):
        first, *rest = (s.training_sample(index, generator_for(n)) for n, s in enumerate((source, source, other)))
        assert all(again.conversations == first.conversations for again in rest)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"conversations": None}, '"conversations" is None: it must be a list'),
        ({"conversations": []}, "has no answered question"),
        ({"conversations": turns("Only this?")}, "has no answered question"),
        ({"conversations": ["hello"]}, "turn 0 is 'hello': it must be an object"),
        ({"conversations": [{"from": "human"}]}, 'turn 0 has no "value"'),
        ({"conversations": [{"from": "human", "value": 3}]}, '"value" is 3: it must be a text'),
        ({"conversations": turns("<image>\n", "A cup.")}, 'turn 0: "value" is empty'),
        ({"conversations": [*turns("a", "b"), *turns("c", first="gpt")]}, "must take turns"),
        ({"conversations": turns("a", "b")[1:] + turns("c", "d", first="gpt")}, "must take turns"),
        ({"image": 5}, '"image" is 5: it must be a text'),
        ({"image": "../../secret.jpg"}, "leads out of the image folder"),
        ({"image": "/etc/x.jpg"}, "leads out of the image folder"),
    ],
)
def test_a_malformed_record_is_named(data, change, sentence):
    with pytest.raises(DataError, match=sentence) as raised:
        drawn(data, {**GOOD, **change})
    assert "record 0" in str(raised.value)


def test_a_record_about_text_alone_is_named(data):
    write(data, [GOOD, {key: value for key, value in GOOD.items() if key != "image"}, "not an object", GOOD])
    source = Vqa(data)
    assert len(source) == 4
    for index, sentence in ((1, "it is about text alone"), (2, "record 2 is 'not an object'")):
        with pytest.raises(DataError, match=sentence):
            source.training_sample(index, generator_for(0))
    assert said(source.training_sample(3, generator_for(0)))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "it is an empty file"),
        (json.dumps([GOOD]).encode()[:-30], "not valid JSON"),
        (b"[]", "holds no records"),
        (b'{"a": 1}', "holds no records"),
    ],
)
def test_an_unusable_file_is_named(data, content, sentence):
    write(data, content)
    with pytest.raises(DataError, match=sentence) as raised:
        Vqa(data)
    assert raised.value.path.endswith("llava_instruct_150k.json")


def test_missing_files_are_named_at_the_start(data):
    with pytest.raises(FileNotFoundError, match=r"other\.json does not exist"):
        Vqa(data, "other")
    write(data, [{**GOOD, "image": "two.jpg"}])
    with pytest.raises(FileNotFoundError, match=r"1 of 1 images looked for are not in .*two\.jpg"):
        Vqa(data)


def test_an_image_that_cannot_be_decoded_is_a_bad_record(data):
    (data.root / "coco" / "train2017" / "two.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="not an image"):
        drawn(data, {**GOOD, "image": "two.jpg"})


def test_a_large_file_is_indexed_in_little_memory(data, tmp_path):
    record = json.dumps({**GOOD, "conversations": turns("What is it?", "word " * 1000)})
    write(data, f"[{', '.join([record] * 3000)}]".encode())
    path = data.find("llava_dataset/llava_instruct_150k.json")
    (tmp_path / "records").mkdir()
    writer = RecordWriter(tmp_path / "records")
    tracemalloc.start()
    index_list(lambda record, name: record)(path, writer)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    writer.finish()
    assert len(writer) == 3000 and path.stat().st_size > 15_000_000 and peak < 5_000_000
