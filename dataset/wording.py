"""Wording: items dealt to questions, and questions and answers drawn from the immutable banks of `dataset.templates`.

Everything random comes from `rng`. Phrases are lower-cased, sentences are not; neither is ever read as a template, so
braces in them stay text. In an answer every slot stands once and in the given order, and no text is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from dataset.sample import AnswerPart, RejectSlot, TargetSlot
from dataset.templates.absence import CORRECTIONS, DENIALS
from dataset.templates.phrases import PHRASE_ANSWERS, PHRASE_QUESTIONS, SEVERAL_PHRASES_QUESTIONS
from dataset.templates.presence import PRESENCE_ANSWERS, PRESENCE_QUESTIONS
from dataset.templates.sentences import SENTENCE_ANSWERS, SENTENCE_QUESTIONS
from dataset.templates.several import FRAGMENTS, JOINT_ANSWERS, PLAIN_JOINT_ANSWERS

Slot = TargetSlot | RejectSlot
Item = TypeVar("Item")

SLOT = "{seg}"
SEPARATE_CHANCE = 0.8
"""Chance that an answer about several phrases has a fragment for each, as published."""


def allocate(count: int, *, max_questions: int, max_per_question: int, rng: np.random.Generator) -> list[list[int]]:
    """Deal the indices 0 ... count - 1, shuffled, to `min(max_questions, count)` questions.

    Each question gets one item; each further item goes to a question that still has room, all with the same chance.

    Raises:
        ValueError: if there are more items than `max_questions * max_per_question`.
    """
    if count > max_questions * max_per_question:
        raise ValueError(f"{count} items for {max_questions} questions of at most {max_per_question}; sample fewer")
    order = rng.permutation(count).tolist()
    questions = [[item] for item in order[:max_questions]]
    for item in order[max_questions:]:
        room = [question for question in questions if len(question) < max_per_question]
        room[rng.integers(len(room))].append(item)
    return questions


def sampled(count: int, most: int, rng: np.random.Generator) -> list[int]:
    """`most` of the indices 0 ... count - 1, or all if they are fewer, without replacement and in random order."""
    return [int(index) for index in rng.permutation(count)[:most]]


def draw(bank: tuple[Item, ...], rng: np.random.Generator) -> Item:
    """One item of a bank, all with the same chance."""
    return bank[rng.integers(len(bank))]


def listed(phrases: Sequence[str], last: str = "and") -> str:
    """At least one phrase as a list, such as "a", "a and b" or "a, b and c"; `last` is the word before the last."""
    *others, final = phrases
    return f"{', '.join(others)} {last} {final}" if others else final


def _interleaved(texts: Sequence[str], slots: Sequence[Slot]) -> tuple[AnswerPart, ...]:
    """Texts with a slot between each two of them, without the empty ones."""
    if len(texts) != len(slots) + 1:
        raise ValueError(f"the answer has {len(texts) - 1} place(s) for {len(slots)} target(s)")
    parts: list[AnswerPart] = [texts[0].strip()]
    for slot, text in zip(slots, texts[1:], strict=True):
        parts += [slot, text.strip()]
    return tuple(part for part in parts if part != "")


def fill(text: str, marker: str, slots: Sequence[Slot]) -> tuple[AnswerPart, ...]:
    """An answer that comes with the data, with the slots in place of its markers.

    Raises:
        ValueError: if markers and slots differ in number.
    """
    return _interleaved(text.split(marker), slots)


def _worded(template: str, slots: Sequence[Slot], names: Sequence[str] = ()) -> tuple[AnswerPart, ...]:
    """A template with its slots; `{0}`, `{1}`, ... are single names, `{text}` is the list of them."""
    text = listed(names) if names else ""
    # Cut first: a name may hold the marker.
    return _interleaved([piece.format(*names, text=text) for piece in template.split(SLOT)], slots)


def _joint(template: str, count: int) -> str:
    return template.replace(SLOT, listed([SLOT] * count))


def _separate(fragment: str, count: int) -> str:
    template = listed([fragment.replace("{text}", f"{{{number}}}") for number in range(count)])
    return f"{template[0].upper()}{template[1:]}."


def _lowered(phrases: Sequence[str]) -> list[str]:
    return [phrase.strip().lower() for phrase in phrases]


def ask_phrases(phrases: Sequence[str], rng: np.random.Generator) -> str:
    """A short question about at least one phrase."""
    bank = PHRASE_QUESTIONS if len(phrases) == 1 else SEVERAL_PHRASES_QUESTIONS
    return draw(bank, rng).format(text=listed(_lowered(phrases)))


def ask_presence(phrase: str, rng: np.random.Generator) -> str:
    """A question whether a thing is there, which asks for its mask if so."""
    return draw(PRESENCE_QUESTIONS, rng).format(text=phrase.strip().lower())


def ask_sentence(sentence: str, rng: np.random.Generator) -> str:
    """A full sentence with a request for a mask."""
    return draw(SENTENCE_QUESTIONS, rng).format(text=sentence.strip())


def answer_phrases(phrases: Sequence[str], slots: Sequence[Slot], rng: np.random.Generator) -> tuple[AnswerPart, ...]:
    """An answer with one slot for each of at least one phrase.

    Several phrases have a fragment each, all in one wording ("a is ..., b is ... and c is ..."), or, more rarely, a
    joint answer ("a, b and c are ..., ... and ...").

    Raises:
        ValueError: if phrases and slots differ in number.
    """
    names = _lowered(phrases)
    if len(names) == 1:
        template = draw(PHRASE_ANSWERS, rng)
    elif rng.random() < SEPARATE_CHANCE:
        template = _separate(draw(FRAGMENTS, rng), len(names))
    else:
        template = _joint(draw(JOINT_ANSWERS, rng), len(names))
    return _worded(template, slots, names)


def answer_targets(
    slots: Sequence[Slot], rng: np.random.Generator, *, names: Sequence[str] | None = None
) -> tuple[AnswerPart, ...]:
    """An answer to a sentence, with at least one slot.

    Args:
        slots: of the targets, in order.
        rng: draws the wording.
        names: what the targets are called, one name each, if that is known.

    Raises:
        ValueError: if names and slots differ in number.
    """
    if names is not None:
        return answer_phrases(names, slots, rng)
    bank = SENTENCE_ANSWERS if len(slots) == 1 else PLAIN_JOINT_ANSWERS
    return _worded(_joint(draw(bank, rng), len(slots)), slots)


def answer_present(phrase: str, slot: Slot, rng: np.random.Generator) -> tuple[AnswerPart, ...]:
    """The thing is there, with its slot."""
    return _worded(draw(PRESENCE_ANSWERS, rng), [slot], _lowered([phrase]))


def deny(phrase: str, rng: np.random.Generator) -> tuple[AnswerPart, ...]:
    """Plain words that a thing is not there; no slot."""
    return (draw(DENIALS, rng).format(text=phrase.strip().lower()),)


def correct(phrase: str, true_phrase: str, rng: np.random.Generator) -> tuple[AnswerPart, ...]:
    """Plain words that a thing is not there, but what `true_phrase` says is; no slot."""
    text, true = _lowered([phrase, true_phrase])
    return (draw(CORRECTIONS, rng).format(text=text, true=true),)
