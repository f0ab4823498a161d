"""Wordings: banks in order and never changed, items dealt as specified, every slot once and in its place."""

import re
from itertools import pairwise

import numpy as np
import pytest

from dataset import wording
from dataset.prompt import PromptEncoder
from dataset.sample import Conversation, RejectSlot, TargetSlot, Turn
from dataset.templates import absence, phrases, presence, sentences, several
from tests.conftest import make_registry
from utils.prompt_template import VICUNA

SEEDS = range(300)
MODULES = (absence, phrases, presence, sentences, several)
BANKS = {name: bank for module in MODULES for name, bank in vars(module).items() if re.match("[A-Z]", name)}
SHAPES = {
    # Wordings, those that name the phrase, fields that each of them must hold.
    "PHRASE_QUESTIONS": (18, 18, ["{text}"]),
    "SEVERAL_PHRASES_QUESTIONS": (18, 18, ["{text}"]),
    "PRESENCE_QUESTIONS": (100, 100, ["{text}"]),
    "SENTENCE_QUESTIONS": (50, 50, ["{text}"]),
    "DENIALS": (77, 76, []),
    "CORRECTIONS": (99, 99, ["{text}", "{true}"]),
    "PHRASE_ANSWERS": (17, 12, ["{seg}"]),
    "PRESENCE_ANSWERS": (80, 50, ["{seg}"]),
    "SENTENCE_ANSWERS": (35, 0, ["{seg}"]),
    "FRAGMENTS": (13, 12, ["{seg}"]),
    "JOINT_ANSWERS": (28, 22, ["{seg}"]),
    "PLAIN_JOINT_ANSWERS": (6, 0, ["{seg}"]),
}


def rng(*seed):
    return np.random.default_rng(seed)


def spoken(answer):
    """An answer as text, with a mark for each slot."""
    return " ".join(part if isinstance(part, str) else "SLOT" for part in answer)


def slot_answers(seed):
    """Every kind of answer that holds slots, with the slots it was given."""
    for count in (1, 2, 3, 5):
        names = [f"thing {number}" for number in range(count)]
        slots = [RejectSlot() if number == 1 else TargetSlot(count - number) for number in range(count)]
        yield wording.answer_phrases(names, slots, rng(seed, count)), slots
        yield wording.answer_targets(slots, rng(seed, count)), slots
        yield wording.answer_targets(slots, rng(seed, count), names=names), slots
    yield wording.answer_present("the cup", TargetSlot(4), rng(seed)), [TargetSlot(4)]


def texts_about(phrase, seed):
    """Every kind of question and answer about a phrase, as text."""
    yield wording.ask_phrases([phrase], rng(seed))
    yield wording.ask_phrases(["a dog", phrase, "two cats"], rng(seed))
    yield wording.ask_presence(phrase, rng(seed))
    yield wording.ask_sentence(phrase, rng(seed))
    yield spoken(wording.answer_phrases([phrase], [TargetSlot(0)], rng(seed)))
    yield spoken(wording.answer_phrases(["a dog", phrase], [TargetSlot(0), TargetSlot(1)], rng(seed)))
    yield spoken(wording.answer_present(phrase, TargetSlot(0), rng(seed)))
    yield spoken(wording.deny(phrase, rng(seed)))
    yield spoken(wording.correct("a dog", phrase, rng(seed)))
    yield spoken(wording.correct(phrase, "a dog", rng(seed)))


def test_every_bank_is_listed_here():
    assert set(BANKS) == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_size_and_fields_of_a_bank(name):
    size, naming, required = SHAPES[name]
    bank = BANKS[name]
    assert isinstance(bank, tuple)
    assert (len(bank), sum("{text}" in item for item in bank)) == (size, naming)
    assert len({item.lower() for item in bank}) == size
    for item in bank:
        fields = re.findall(r"[{][^}]*[}]", item)
        assert len(set(fields)) == len(fields) and {*fields, "{text}"} == {*required, "{text}"}, item
        assert set(required) <= set(fields), item


@pytest.mark.parametrize("name", SHAPES)
def test_a_wording_is_clean(name):
    for item in BANKS[name]:
        fragment = name == "FRAGMENTS"
        assert item == " ".join(item.split()) and not re.search(r" [,.;:?]|[,.;:]{2}|[.?] [a-z]", item), item
        assert fragment or re.match(r'[A-Z{]|"[{]', item), item
        assert re.search(r'([.?]|[.]"|"[.])$', item) or item.endswith("{text}") or fragment, item


@pytest.mark.parametrize("name", [name for name, (_, _, required) in SHAPES.items() if required == ["{seg}"]])
def test_the_slot_comes_last(name):
    assert all(re.search(r"([ ]|^)[{]seg[}][.]?$", item) for item in BANKS[name])


@pytest.mark.parametrize(("count", "questions"), [(0, 0), (1, 1), (2, 2), (3, 3), (5, 3), (9, 3)])
def test_items_are_dealt_to_questions(count, questions):
    for seed in SEEDS:
        dealt = wording.allocate(count, max_questions=3, max_per_question=3, rng=rng(seed))
        assert len(dealt) == questions and all(1 <= len(items) <= 3 for items in dealt)
        assert sorted(item for items in dealt for item in items) == list(range(count))


def test_items_are_dealt_by_chance():
    dealt = [wording.allocate(5, max_questions=3, max_per_question=3, rng=rng(seed)) for seed in SEEDS]
    assert {tuple(len(items) for items in questions) for questions in dealt} == {
        (3, 1, 1), (1, 3, 1), (1, 1, 3), (2, 2, 1), (2, 1, 2), (1, 2, 2),
    }  # fmt: skip
    assert {questions[0][0] for questions in dealt} == set(range(5))
    assert dealt == [wording.allocate(5, max_questions=3, max_per_question=3, rng=rng(seed)) for seed in SEEDS]


def test_more_items_than_places_are_refused():
    with pytest.raises(ValueError, match="10 items for 3 questions of at most 3"):
        wording.allocate(10, max_questions=3, max_per_question=3, rng=rng(0))


def test_sampled_indices():
    drawn = [wording.sampled(7, 3, rng(seed)) for seed in SEEDS]
    assert all(len(set(indices)) == 3 for indices in drawn) and {i for indices in drawn for i in indices} == set(
        range(7)
    )
    assert sorted(wording.sampled(2, 9, rng(0))) == [0, 1] and wording.sampled(0, 9, rng(0)) == []


def test_lists_of_phrases():
    assert wording.listed(["a"]) == "a"
    assert wording.listed(["a", "b"]) == "a and b"
    assert wording.listed(["a", "b", "c", "d"], "or") == "a, b, c or d"


def test_every_slot_once_and_in_order():
    for seed in SEEDS:
        for answer, slots in slot_answers(seed):
            assert [part for part in answer if not isinstance(part, str)] == slots
            texts = [part for part in answer if isinstance(part, str)]
            assert all(text and text == text.strip() for text in texts) and answer[-1] == "."
            assert all(isinstance(a, str) != isinstance(b, str) for a, b in pairwise(answer))


def test_names_stand_in_the_order_of_their_slots():
    slots = [TargetSlot(2), RejectSlot(), TargetSlot(0)]
    separate = ("a is", slots[0], ", b is", slots[1], "and c is", slots[2], ".")
    joint = ("The masks of a, b and c are", slots[0], ",", slots[1], "and", slots[2], ".")
    drawn = [wording.answer_phrases(["A", " b", "c"], slots, rng(seed)) for seed in SEEDS]
    assert separate in drawn and joint in drawn
    assert ("Here is a:", slots[0], ", here is b:", slots[1], "and here is c:", slots[2], ".") in drawn


def test_one_answer_in_five_is_joint():
    several = [f"thing {number}" for number in range(3)]
    slots = [TargetSlot(number) for number in range(3)]
    drawn = [wording.answer_phrases(several, slots, rng(seed)) for seed in range(2000)]
    named = [answer for answer in drawn if any("thing" in part for part in answer if isinstance(part, str))]
    joint = [answer for answer in named if "thing 0, thing 1 and thing 2" in answer[0]]
    # Of the separate answers 12 in 13 name the phrases, of the joint ones 22 in 28.
    expected = (0.2 * 22 / 28) / (0.2 * 22 / 28 + 0.8 * 12 / 13)
    assert abs(len(joint) / len(named) - expected) < 0.03


@pytest.mark.parametrize("count", [0, 1, 3])
def test_phrases_and_slots_must_agree(count):
    for seed in SEEDS:
        with pytest.raises(ValueError, match=rf"2 place\(s\) for {count} target\(s\)"):
            wording.answer_phrases(["a", "b"], [TargetSlot(0)] * count, rng(seed))


def test_slots_fill_the_markers_of_a_text():
    slots = [TargetSlot(1), RejectSlot(), TargetSlot(0)]
    filled = wording.fill("{seg} and {seg} {seg} hold {coffee}.", "{seg}", slots)
    assert filled == (slots[0], "and", slots[1], slots[2], "hold {coffee}.")
    assert wording.fill("Nothing here.", "{seg}", []) == ("Nothing here.",)
    for wrong in ([], slots[:2], slots * 2):
        with pytest.raises(ValueError, match="3 place"):
            wording.fill("{seg}, {seg} and {seg}.", "{seg}", wrong)


@pytest.mark.parametrize("phrase", ["a {cup}", "{text} {0} {true}", "{", "the {seg} sign", "100 % {}"])
def test_braces_of_the_user_survive(phrase):
    found = [[phrase in text for text in texts_about(phrase, seed)] for seed in SEEDS]
    questions_and_correction = (0, 1, 2, 3, 8, 9)
    assert all(kinds[number] for kinds in found for number in questions_and_correction)
    assert all(any(kinds[number] for kinds in found) for number in range(10))


def test_case_of_phrases_and_sentences():
    for seed in SEEDS:
        kinds = list(texts_about("The XYZ", seed))
        assert "The XYZ" in kinds.pop(3) and not any("XYZ" in text for text in kinds)


def test_false_premises_are_answered_in_plain_words():
    for seed in SEEDS:
        (denial,), (correction,) = wording.deny("the kite", rng(seed)), wording.correct("the kite", "a dog", rng(seed))
        assert isinstance(denial, str) and "{" not in denial
        assert "the kite" in correction and "a dog" in correction and "{" not in correction


def test_same_generator_same_words_and_banks_stay_as_they_are():
    before = {name: hash(bank) for name, bank in BANKS.items()}
    assert list(texts_about("the cup", 3)) == list(texts_about("the cup", 3))
    assert before == {name: hash(vars(module)[name]) for module in MODULES for name in vars(module) if name in BANKS}
    assert len({text for seed in SEEDS for text in texts_about("the cup", seed)}) > 500


def test_answers_become_prompts():
    registry = make_registry()
    encoder = PromptEncoder(registry, VICUNA, image_placeholder=-200, num_image_tokens=4, max_length=2048)
    for seed in range(20):
        for answer, slots in slot_answers(seed):
            branch = encoder.branch(Conversation((Turn("Which?", answer),)), "record")
            targets = tuple(slot for slot in slots if isinstance(slot, TargetSlot))
            assert [slot.mask for slot in branch.slots if slot.mask is not None] == [target.mask for target in targets]
            assert branch.ids.count(registry.reject_id) == len(slots) - len(targets)
