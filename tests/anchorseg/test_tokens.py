"""Token registry: ids of the published tokenization, added tokens never split, folders checked."""

import json

import pytest

from anchorseg.method.tokens import TokenRegistry, TokenStrings
from tests.conftest import make_registry
from utils.errors import CheckpointError


def test_added_tokens_follow_the_vocabulary_in_order():
    registry = make_registry(3)
    assert registry.strings.all == ("<SEG>", "<REJ>", "<REAS_1>", "<REAS_2>", "<REAS_3>", "<im_start>", "<im_end>")
    first = registry.segment_id
    assert [registry.added[token] for token in registry.strings.all] == list(range(first, first + 7))
    assert registry.bank_ids == (first + 2, first + 3, first + 4, first)
    assert len(registry) == first + 7


def test_every_id_of_the_published_batch(shared):
    folder = shared / "fixtures" / "parity"
    batch = json.loads((folder / "collate.json").read_text())["train"]
    registry = TokenRegistry.load(folder, TokenStrings.released(7))
    for text, ids, count in zip(
        batch["conversations_after_collate"], batch["input_ids"], batch["n_real_tokens"], strict=True
    ):
        assert [registry.bos_id, *registry.encode(text, -200)] == ids[:count]


def test_text_cannot_smuggle_an_added_token():
    registry = make_registry()
    assert not set(registry.encode_piece("draw <SEG> and <REAS_1>")) & set(registry.added.values())


def test_decode_names_added_tokens():
    registry = make_registry(2)
    ids = [*registry.encode_piece("It is"), *registry.bank_ids, *registry.encode_piece("."), registry.eos_id]
    assert registry.decode(ids) == "It is <REAS_1> <REAS_2> <SEG>."


def test_folder_round_trip(tmp_path):
    registry = make_registry(4)
    registry.save(tmp_path)
    again = TokenRegistry.load(tmp_path, registry.strings)
    assert again.added == registry.added and again.encode_piece("a red ball") == registry.encode_piece("a red ball")


def test_tokenizer_without_the_added_tokens_is_refused(tmp_path):
    registry = make_registry(2)
    registry.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"<REAS_3> have no id"):
        TokenRegistry.load(tmp_path, TokenStrings.for_bank(3))
    (tmp_path / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer.model is missing"):
        TokenRegistry.load(tmp_path, registry.strings)


@pytest.mark.parametrize(("file", "content"), [("tokenizer.model", b"\0\1"), ("added_tokens.json", b"[3")])
def test_damaged_tokenizer_is_refused_by_name(tmp_path, file, content):
    registry = make_registry(2)
    registry.save(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{file}( is damaged|: it is not valid JSON)"):
        TokenRegistry.load(tmp_path, registry.strings)
