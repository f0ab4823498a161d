"""Prompt: a template as token ids, with a supervised flag for every id and a slot for every target.

Of LLaVA-1.5 `{system} USER: <im_start><image><im_end> {question} ASSISTANT: {answer}</s>`. What comes up to the image
is the same for all conversations about it (the prefix); the rest is a conversation's own branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dataset.sample import AnswerPart, Conversation, TargetSlot
from utils.errors import DataError
from utils.prompt_template import PromptTemplate


class Vocabulary(Protocol):
    """What prompts need of a tokenizer: ids of the special tokens, and text to ids."""

    @property
    def eos_id(self) -> int:
        """Id of what ends an answer."""

    @property
    def reject_id(self) -> int:
        """Id of `<REJ>`."""

    @property
    def bank_ids(self) -> tuple[int, ...]:
        """Ids of one target's query bank, in order."""

    @property
    def image_ids(self) -> tuple[int, int]:
        """Ids of the tokens before and behind the image tokens."""

    def encode_prompt(self, template: str, question: str = "") -> list[int]:
        """Ids of a part of a `PromptTemplate`."""

    def encode_piece(self, text: str) -> list[int]:
        """Ids of text that holds no added token."""


@dataclass(frozen=True)
class Slot:
    """Place of a query bank or of `<REJ>`: the index of its last id, the mask of its target or None, and how many ids
    the bank has, or would have."""

    end: int
    mask: int | None
    length: int


@dataclass(frozen=True)
class Branch:
    """Token ids of one conversation after the image, which of them are supervised, and its slots in order."""

    ids: tuple[int, ...]
    supervised: tuple[bool, ...]
    slots: tuple[Slot, ...]


class PromptEncoder:
    """Turn conversations into ids.

    Args:
        vocabulary: tokenizer and ids of the added tokens.
        template: of the language model.
        image_placeholder: id that stands for one image token.
        num_image_tokens: most image tokens of one image, which count towards `max_length`.
        max_length: longest allowed sequence, prefix and image included.
        latents: how many latent tokens a query bank has; None for all.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        template: PromptTemplate,
        *,
        image_placeholder: int,
        num_image_tokens: int,
        max_length: int,
        latents: int | None = None,
    ) -> None:
        self._vocabulary, self._template = vocabulary, template
        self.max_length = max_length
        self._latents = latents
        self.bank_length = len(self._bank(latents))
        start, end = vocabulary.image_ids
        self._opening, self._closing = (*vocabulary.encode_prompt(template.opening), start), (end,)
        self._image_placeholder = image_placeholder
        self._longest_prefix = len(self.prefix(num_image_tokens))

    @property
    def image_start(self) -> int:
        """Column of the first image token."""
        return len(self._opening)

    def prefix(self, columns: int) -> tuple[int, ...]:
        """Ids up to the image's end, with so many columns of image tokens."""
        return (*self._opening, *[self._image_placeholder] * columns, *self._closing)

    def _text(self, text: str) -> list[int]:
        text = text.strip()
        return self._vocabulary.encode_piece(text) if text else []

    def _bank(self, latents: int | None) -> tuple[int, ...]:
        *reasoning, segment = self._vocabulary.bank_ids
        return (*reasoning[:latents], segment)

    def _answer(self, parts: tuple[AnswerPart, ...], start: int, bank: tuple[int, ...]) -> tuple[list[int], list[Slot]]:
        """Ids of an answer that begins at index `start` of its branch, and its slots."""
        ids: list[int] = []
        slots: list[Slot] = []
        for part in parts:
            if isinstance(part, str):
                ids.extend(self._text(part))
                continue
            mask = part.mask if isinstance(part, TargetSlot) else None
            ids.extend((self._vocabulary.reject_id,) if mask is None else bank)
            slots.append(Slot(start + len(ids) - 1, mask, len(bank)))
        return ids, slots

    def branch(self, conversation: Conversation, record: str) -> Branch:
        """Encode one conversation.

        Raises:
            DataError: if prefix and branch exceed `max_length`; nothing is ever cut.
        """
        bank = self._bank(self._latents if conversation.latents is None else conversation.latents)
        ids: list[int] = []
        supervised: list[bool] = []
        slots: list[Slot] = []
        for index, turn in enumerate(conversation.turns):
            part = self._template.first if index == 0 else self._template.further
            ids += self._vocabulary.encode_prompt(part, turn.question.strip())
            supervised += [False] * (len(ids) - len(supervised))
            if turn.answer is not None:
                answer, placed = self._answer(turn.answer, len(ids), bank)
                ids += [*answer, self._vocabulary.eos_id]
                slots += placed
            supervised += [True] * (len(ids) - len(supervised))
        self._refuse_long(len(ids), record)
        return Branch(tuple(ids), tuple(supervised), tuple(slots))

    def follow_up(self, dialogue: Sequence[int], question: str, record: str) -> tuple[int, ...]:
        """Ids of a further question up to its answer, behind those of a dialogue whose last answer lacks its end.

        Raises:
            DataError: as `branch`.
        """
        asked = self._vocabulary.encode_prompt(self._template.further, question.strip())
        ids = (*dialogue, self._vocabulary.eos_id, *asked)
        self._refuse_long(len(ids), record)
        return ids

    def answer_ids(self, parts: tuple[AnswerPart, ...]) -> tuple[int, ...]:
        """Ids of an answer without its end."""
        return tuple(self._answer(parts, 0, self._bank(self._latents))[0])

    def _refuse_long(self, behind_image: int, record: str) -> None:
        length = self._longest_prefix + behind_image
        if length > self.max_length:
            raise DataError(
                record,
                f"the conversation has {length} tokens, but at most {self.max_length} are allowed; "
                "shorten it, begin a new dialogue, or raise the limit (--model_max_length, max_length)",
            )
