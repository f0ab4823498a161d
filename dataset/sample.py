"""Sample: one image with its conversations and masks, as every source gives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Protocol = Literal["forced", "symmetric", "generate"]
"""How a benchmark asks. `forced`: the true answer is in the prompt (published numbers). `symmetric`: a query bank is in
the prompt for every question, whether or not there is such an object. `generate`: the model writes its answer."""


@dataclass(frozen=True)
class TargetSlot:
    """Place in an answer where the query bank of one target goes; `mask` indexes the sample's masks."""

    mask: int


@dataclass(frozen=True)
class RejectSlot:
    """Place in an answer where `<REJ>` goes: there is no such object."""


AnswerPart = str | TargetSlot | RejectSlot


@dataclass(frozen=True)
class Turn:
    """A question and its answer; an answer of None is left to the model (generation)."""

    question: str
    answer: tuple[AnswerPart, ...] | None


@dataclass(frozen=True)
class Conversation:
    """Turns about one image, independent of the image's other conversations.

    Attributes:
        turns: in order.
        latents: how many latent tokens its query banks have; None for as many as the prompt has by itself.
    """

    turns: tuple[Turn, ...]
    latents: int | None = None

    @property
    def targets(self) -> tuple[TargetSlot, ...]:
        """Target slots in reading order."""
        parts = (part for turn in self.turns for part in turn.answer or ())
        return tuple(part for part in parts if isinstance(part, TargetSlot))


@dataclass(frozen=True)
class Question:
    """What one score is about: the user's own words, without any template, and the masks that are its truth.

    No target means that there is no such object.
    """

    text: str
    targets: tuple[int, ...] = (0,)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image, what is asked about it, and the truth.

    Attributes:
        record: where the sample comes from, for messages and result rows.
        image: (H, W, 3) uint8 RGB.
        conversations: what is asked; slots refer to `masks`.
        masks: (n, H, W) boolean.
        ignore: (n, H, W) boolean, pixels that are neither of a mask nor of its background, or None.
        instances: of each mask the objects (m, H, W) that it unites, m 0 where they are not told apart; empty where no
            mask has any.
        questions: what evaluation scores. With one conversation its slots belong to the questions in reading order, as
            many as a question has targets, or one; otherwise each conversation is a question.
    """

    record: str
    image: np.ndarray
    conversations: tuple[Conversation, ...]
    masks: np.ndarray
    ignore: np.ndarray | None = None
    questions: tuple[Question, ...] = ()
    instances: tuple[np.ndarray, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.instances) in (0, len(self.masks)), self.record
        assert self.masks.dtype == bool and self.masks.shape[1:] == self.image.shape[:2], self.record
        for conversation in self.conversations:
            for slot in conversation.targets:
                assert 0 <= slot.mask < len(self.masks), f"{self.record}: slot {slot} of {len(self.masks)} masks"

    @property
    def query(self) -> str:
        """Words of the first question."""
        return self.questions[0].text if self.questions else ""

    @property
    def truth(self) -> np.ndarray:
        """(H, W) boolean union of all masks."""
        return np.asarray(self.masks.any(axis=0))

    @property
    def void(self) -> np.ndarray | None:
        """(H, W) boolean, pixels outside the truth that evaluation leaves out, or None."""
        return None if self.ignore is None else np.asarray(self.ignore.any(axis=0) & ~self.truth)
