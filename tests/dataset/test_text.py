"""Text of annotations: every encoding that can be known is read, and no other is guessed."""

import json
import pickle

import pytest

from dataset.families.vqa import Vqa
from dataset.readers.folder import DataFolder
from dataset.readers.json_stream import first_key, stream
from dataset.readers.labelme import read_labelme
from dataset.readers.pickles import read_pickle
from dataset.readers.reason_seg import read_annotation
from dataset.readers.western import decode_western
from utils.errors import DataError
from utils.shown import shown

SHAPES = [{"label": "target", "points": [[1, 1], [9, 1], [9, 9]]}]


def annotation(tmp_path, text, encoding, **more):
    content = {"text": [text], "is_sentence": False, "shapes": SHAPES, **more}
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom"])
@pytest.mark.parametrize("text", ["the café table", "红色的杯子", "красная чашка", "🙂 the cup"])
def test_unicode_is_read_in_every_form_that_says_so(tmp_path, encoding, text):
    marks = {"utf-16-le-bom": (b"\xff\xfe", "utf-16-le"), "utf-16-be-bom": (b"\xfe\xff", "utf-16-be")}
    mark, name = marks.get(encoding, (b"", encoding))
    path = annotation(tmp_path, text, name)
    path.write_bytes(mark + path.read_bytes())
    assert read_annotation(path).texts == (text,)
    assert read_labelme(path).phrases == ("target",)
    assert list(stream(path, "text.item")) == [text] and first_key(path, {"shapes"}) == "shapes"


@pytest.mark.parametrize(
    "text",
    [
        "the café table", "a \u201cgood\u201d place \u2013 here\u2026", "the señor\u2019s hat", "20° to the left",
        "crème brûlée", "voilà, a naïve boy",
    ],
)  # fmt: skip
def test_published_cp1252_is_read(tmp_path, text):
    assert read_annotation(annotation(tmp_path, text, "cp1252")).texts == (text,)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("红色的杯子", "gbk"), ("杯", "gbk"), ("紅色的杯子", "big5"), ("赤いカップ", "shift_jis"), ("カ", "shift_jis"),
        ("빨간 컵", "euc_kr"), ("красная чашка", "cp1251"), ("я", "cp1251"), ("красная", "koi8-r"),
        ("様", "shift_jis"), ("pełny kubek stoi na stole", "cp1250"), ("the café table", "mac-roman"),
        ("the café", "cp437"),
        ("κόκκινο", "cp1253"), ("ถ้วย", "cp874"), ("the café table", "utf-16-le"), ("the café", "utf-32"),
    ],
)  # fmt: skip
def test_other_encodings_are_refused_and_named(tmp_path, text, encoding):
    with pytest.raises(DataError, match=r"a\.json: its text (is not UTF-8|is UTF-32|seems to be UTF-16|starts as)"):
        read_annotation(annotation(tmp_path, text, encoding))


def test_a_word_is_not_taken_for_another():
    with pytest.raises(ValueError, match="perhaps of an older encoding such as GBK"):
        decode_western("чашка".encode("cp1251"))


@pytest.mark.parametrize("value", ["false", "true", "", "0", None, 2, 0.5, [], {}])
def test_whether_it_is_a_sentence_is_true_or_false(tmp_path, value):
    with pytest.raises(DataError, match=r'"is_sentence" is .*; it must be true or false, without quotes'):
        read_annotation(annotation(tmp_path, "cup", "utf-8", is_sentence=value))


@pytest.mark.parametrize(("value", "wanted"), [(True, True), (False, False), (1, True), (0, False)])
def test_numbers_for_true_and_false(tmp_path, value, wanted):
    assert read_annotation(annotation(tmp_path, "cup", "utf-8", is_sentence=value)).is_sentence is wanted


def nested(depth: int) -> bytes:
    return b'{"shapes": ' + b"[" * depth + b"]" * depth + b"}"


WRECKERS = {
    "brackets": (nested(50_000), "more than 100 lists and objects are nested"),
    "braces": (b'{"a":' * 30_000 + b"1" + b"}" * 30_000, "more than 100 lists and objects are nested"),
    "brackets behind a text": (b'{"a": "]]]]\\"]]", "b": ' + b"[" * 200, "more than 100 lists"),
    "digits": (b'{"shapes": [' + b"7" * 5000 + b"]}", "a number has 1000 digits"),
    "digits behind a sign": (b'{"images": [{"id": -' + b"1" * 100_000 + b"}]}", "a number has 1000 digits"),
    "over two chunks": (b'{"a": "' + b"x" * 1048566 + b'\\\\", "b": ' + b"[" * 200, "more than 100 lists"),
    "quotes without end": (b'[1, "' + b'\\"' * 900_000, "not valid JSON|breaks off"),
    "a web page": (b"<!DOCTYPE html>", "a web page"),
    "zero bytes": (bytes(5000), "zero bytes"),
    "a text without end": (b'{"a": "' + b"x" * (40 << 20), "a text is longer than"),
}


@pytest.mark.parametrize("kind", WRECKERS)
def test_what_the_parser_does_not_survive_is_refused_before(tmp_path, kind):
    content, reason = WRECKERS[kind]
    path = tmp_path / "a.json"
    path.write_bytes(content)
    for read in (lambda: list(stream(path, "images.item")), lambda: first_key(path, {"nowhere"})):
        with pytest.raises(DataError, match=reason):
            read()


def test_brackets_and_digits_inside_texts_are_text(tmp_path):
    path = tmp_path / "a.json"
    texts = ["[" * 500, "{" * 500, "1" * 5000, '"[' * 300, "\\" * 301, "x" * (3 << 20) + '"['] * 2
    path.write_text(json.dumps(texts))
    assert list(stream(path, "item")) == texts


@pytest.mark.parametrize("value", [10**400, 1e308, 2**63, -(2**63) - 1, "7", True, None, 0.5])
def test_ids_are_whole_numbers_of_64_bits(tmp_path, value):
    record = {"id": value, "image": "a.jpg", "conversations": [{"from": "human", "value": 3}]}
    path = tmp_path / "llava_dataset" / "llava_instruct_150k.json"
    path.parent.mkdir()
    path.write_text(json.dumps([record] * 3))
    (tmp_path / "coco" / "train2017").mkdir(parents=True)
    with pytest.raises((DataError, FileNotFoundError)):
        Vqa(DataFolder(tmp_path, tmp_path / "index")).training_sample(0, None)


def test_lists_that_double_at_every_level_are_shown_short(tmp_path):
    value: object = "x"
    for _ in range(60):
        value = [value, value]
    path = tmp_path / "a.p"
    path.write_bytes(pickle.dumps([{"ref_id": value}]))
    read = read_pickle(path)
    assert len(shown(read[0]["ref_id"])) <= 60
