"""Sample: one image with its conversations and masks, as every source gives it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
    """Turns about one image, independent of the image's other conversations."""

    turns: tuple[Turn, ...]

    @property
    def targets(self) -> tuple[TargetSlot, ...]:
        """Target slots in reading order."""
        parts = (part for turn in self.turns for part in turn.answer or ())
        return tuple(part for part in parts if isinstance(part, TargetSlot))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image, what is asked about it, and the truth.

    Attributes:
        record: where the sample comes from, for messages and result rows.
        image: (H, W, 3) uint8 RGB.
        conversations: what is asked; slots refer to `masks`.
        masks: (n, H, W) boolean.
        ignore: (n, H, W) boolean, pixels that are neither of a mask nor of its background, or None.
        query: the user's own words of the first conversation, without any template.
    """

    record: str
    image: np.ndarray
    conversations: tuple[Conversation, ...]
    masks: np.ndarray
    ignore: np.ndarray | None = None
    query: str = ""

    def __post_init__(self) -> None:
        assert self.masks.dtype == bool and self.masks.shape[1:] == self.image.shape[:2], self.record
        for conversation in self.conversations:
            for slot in conversation.targets:
                assert 0 <= slot.mask < len(self.masks), f"{self.record}: slot {slot} of {len(self.masks)} masks"

    @property
    def truth(self) -> np.ndarray:
        """(H, W) boolean union of all masks."""
        return np.asarray(self.masks.any(axis=0))

    @property
    def void(self) -> np.ndarray | None:
        """(H, W) boolean, pixels outside the truth that evaluation leaves out, or None."""
        return None if self.ignore is None else np.asarray(self.ignore.any(axis=0) & ~self.truth)
