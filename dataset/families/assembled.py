"""Assembled samples: the phrases of an image dealt to questions, each question a conversation of one turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from dataset.sample import Conversation, Question, RejectSlot, Sample, TargetSlot, Turn
from dataset.wording import Slot, allocate, answer_phrases, ask_phrases
from utils.errors import DataError


@dataclass(frozen=True, eq=False)
class Target:
    """What a phrase means: a (H, W) boolean mask, or None if there is no such object, and the objects (m, H, W) of
    which it is the union, where they are told apart."""

    phrase: str
    mask: np.ndarray | None
    objects: np.ndarray | None = None


def assemble(
    record: str,
    image: np.ndarray,
    targets: Sequence[Target],
    *,
    max_questions: int,
    max_per_question: int,
    rng: np.random.Generator,
    ignore: np.ndarray | None = None,
) -> Sample:
    """Ask for some phrases of one image.

    Args:
        record: where they come from.
        image: (H, W, 3) uint8 RGB.
        targets: 1 to `max_questions * max_per_question` phrases. One without a mask is answered by `<REJ>`; the others
            become the sample's masks, in reading order.
        max_questions: most questions.
        max_per_question: most phrases in a question.
        rng: of the deal and the wordings.
        ignore: (H, W) boolean, pixels without a truth; every mask gets this map, as a view.

    Raises:
        DataError: if a mask has another size than the image, or no pixel.
    """
    for target in targets:
        _check(target, image, record)
    masks: list[np.ndarray] = []
    instances: list[np.ndarray] = []
    questions: list[Question] = []
    conversations: list[Conversation] = []
    for group in allocate(len(targets), max_questions=max_questions, max_per_question=max_per_question, rng=rng):
        phrases = [targets[number].phrase for number in group]
        slots: list[Slot] = []
        for number in group:
            mask = targets[number].mask
            slots.append(RejectSlot() if mask is None else TargetSlot(len(masks)))
            questions.append(Question(targets[number].phrase, () if mask is None else (len(masks),)))
            masks += [] if mask is None else [mask]
            objects = targets[number].objects
            instances += [] if objects is None else [objects[objects.any(axis=(1, 2))]]
        turn = Turn(ask_phrases(phrases, rng), answer_phrases(phrases, slots, rng))
        conversations.append(Conversation((turn,)))
    size = image.shape[:2]
    return Sample(
        record=record,
        image=image,
        conversations=tuple(conversations),
        masks=np.stack(masks) if masks else np.zeros((0, *size), dtype=bool),
        ignore=None if ignore is None else as_strided(ignore, (len(masks), *size), (0, *ignore.strides)),
        questions=tuple(questions),
        instances=tuple(instances),
    )


def _check(target: Target, image: np.ndarray, record: str) -> None:
    if target.mask is None:
        return
    (height, width), (rows, columns) = target.mask.shape, image.shape[:2]
    if (height, width) != (rows, columns):
        raise DataError(
            record,
            f"its mask has {height} x {width} pixels, but its image {rows} x {columns} after the rotation that the "
            "image file asks for (EXIF), which masks do not follow; annotation and image must be of one set",
        )
    if not target.mask.any():
        raise DataError(
            record, f'no pixel belongs to "{target.phrase}", so there is nothing to learn; correct its mask'
        )
