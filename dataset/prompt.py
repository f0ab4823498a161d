"""Prompt: the LLaVA-v1 template as token ids, with a supervised flag for every id and a slot for every target.

`{system} USER: <im_start><image><im_end> {question} ASSISTANT: {answer}</s>`. The text up to the image is the
same for all conversations of an image (the prefix); the rest is a conversation's own branch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dataset.sample import AnswerPart, Conversation, TargetSlot
from utils.errors import DataError

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)


class Vocabulary(Protocol):
    """What prompts need of a tokenizer: ids of the special tokens, and text to ids."""

    @property
    def bos_id(self) -> int:
        """Id of `<s>`."""

    @property
    def eos_id(self) -> int:
        """Id of `</s>`."""

    @property
    def reject_id(self) -> int:
        """Id of `<REJ>`."""

    @property
    def bank_ids(self) -> tuple[int, ...]:
        """Ids of one target's query bank, in order."""

    @property
    def image_ids(self) -> tuple[int, int]:
        """Ids of `<im_start>` and `<im_end>`."""

    def encode_piece(self, text: str) -> list[int]:
        """Ids of text that holds no added token."""


@dataclass(frozen=True)
class Branch:
    """Token ids of one conversation after the image, which of them are supervised, and its targets in order."""

    ids: tuple[int, ...]
    supervised: tuple[bool, ...]
    targets: tuple[TargetSlot, ...]


class PromptEncoder:
    """Turn conversations into ids.

    Args:
        vocabulary: tokenizer and ids of the added tokens.
        image_placeholder: id that stands for one image token.
        num_image_tokens: P, image tokens of one image.
        max_length: longest allowed sequence, prefix and image included.
    """

    def __init__(
        self, vocabulary: Vocabulary, *, image_placeholder: int, num_image_tokens: int, max_length: int
    ) -> None:
        self._vocabulary = vocabulary
        self.max_length = max_length
        start, end = vocabulary.image_ids
        self.prefix: tuple[int, ...] = (
            vocabulary.bos_id,
            *self._text(f"{SYSTEM} USER:"),
            start,
            *[image_placeholder] * num_image_tokens,
            end,
        )

    def _text(self, text: str) -> list[int]:
        text = text.strip()
        return self._vocabulary.encode_piece(text) if text else []

    def _answer(self, parts: tuple[AnswerPart, ...]) -> list[int]:
        ids: list[int] = []
        for part in parts:
            if isinstance(part, str):
                ids.extend(self._text(part))
            elif isinstance(part, TargetSlot):
                ids.extend(self._vocabulary.bank_ids)
            else:
                ids.append(self._vocabulary.reject_id)
        return ids

    def branch(self, conversation: Conversation, record: str) -> Branch:
        """Encode one conversation.

        Raises:
            DataError: if prefix and branch exceed `max_length`; nothing is ever cut.
        """
        ids: list[int] = []
        supervised: list[bool] = []
        for index, turn in enumerate(conversation.turns):
            opening = "" if index == 0 else "USER: "
            question = self._text(f"{opening}{turn.question.strip()} ASSISTANT:")
            answer = [] if turn.answer is None else [*self._answer(turn.answer), self._vocabulary.eos_id]
            ids += question + answer
            supervised += [False] * len(question) + [True] * len(answer)
        length = len(self.prefix) + len(ids)
        if length > self.max_length:
            raise DataError(
                record,
                f"the conversation has {length} tokens, but at most {self.max_length} are allowed; "
                "shorten it or raise --model_max_length",
            )
        return Branch(tuple(ids), tuple(supervised), conversation.targets)
