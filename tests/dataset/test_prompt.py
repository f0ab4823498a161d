"""Prompts: published ids and labels, slots in order, nothing cut."""

import json

import pytest

from anchorseg.method.tokens import TokenRegistry, TokenStrings
from dataset.prompt import PromptEncoder
from dataset.sample import Conversation, RejectSlot, TargetSlot, Turn
from tests.conftest import make_registry
from utils.errors import DataError
from utils.prompt_template import VICUNA


def encoder(registry, *, tokens=4, max_length=512):
    return PromptEncoder(registry, VICUNA, image_placeholder=-200, num_image_tokens=tokens, max_length=max_length)


def test_ids_and_labels_of_the_published_batch(shared):
    folder = shared / "fixtures" / "parity"
    batch = json.loads((folder / "collate.json").read_text())["train"]
    prompt = encoder(TokenRegistry.load(folder, TokenStrings.released(7)), tokens=1)
    for text, ids, labels, count in zip(
        batch["conversations_before_collate"], batch["input_ids"], batch["labels"], batch["n_real_tokens"], strict=True
    ):
        question, answer = text.split("<image>\n")[1].removesuffix("</s>").split(" ASSISTANT: ")
        parts = [part for piece in answer.split("[SEG]") for part in (piece, TargetSlot(0))][:-1]
        branch = prompt.branch(Conversation((Turn(question, tuple(parts)),)), "record")
        assert [*prompt.prefix(1), *branch.ids] == ids[:count]
        supervised = [-100] * len(prompt.prefix(1)) + [
            index if flag else -100 for index, flag in zip(branch.ids, branch.supervised, strict=True)
        ]
        assert supervised == labels[:count]


def test_supervised_ids_are_the_answers_of_every_turn():
    registry = make_registry()
    turns = (
        Turn("Which object?", ("It is", TargetSlot(1), ".")),
        Turn("And the cup?", (RejectSlot(), ".")),
        Turn("Is it red?", ("Sure.",)),
    )
    branch = encoder(registry).branch(Conversation(turns), "record")
    assert [slot.mask for slot in branch.slots] == [1, None]
    assert branch.ids[branch.slots[0].end] == make_registry().segment_id
    answer = [index for index, flag in zip(branch.ids, branch.supervised, strict=True) if flag]
    eos = registry.eos_id
    expected = [*registry.encode_piece("It is"), *registry.bank_ids, *registry.encode_piece("."), eos]
    expected += [registry.reject_id, *registry.encode_piece("."), eos, *registry.encode_piece("Sure."), eos]
    assert answer == expected
    assert registry.decode(branch.ids).count("USER:") == 2


def test_a_prompt_for_generation_has_no_answer():
    branch = encoder(make_registry()).branch(Conversation((Turn("Which object?", None),)), "record")
    assert not any(branch.supervised) and not branch.slots


def test_an_over_long_conversation_is_refused_whole():
    turn = Turn("very " * 100 + "long?", ("It is", TargetSlot(0), "."))
    with pytest.raises(DataError, match=r"photo.jpg: the conversation has \d+ tokens, but at most 128 are allowed"):
        encoder(make_registry(), max_length=128).branch(Conversation((turn,)), "photo.jpg")
