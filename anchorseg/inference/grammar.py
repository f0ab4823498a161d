"""What a model is asked and writes: ids one by one or a whole query bank, and what comes of them.

Letters: Q questions, N targets, L tokens of a query bank, H W original size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anchorseg.method.head import Segmentation


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Questions about images that are read already.

    Attributes:
        questions: ids of each after the image, up to `ASSISTANT:`.
        rows: image of each question, ascending.
        max_new_tokens: most ids an answer may have; an unfinished bank at the end gives no target.
        answer: ids that every question gets instead of the model's choice, or None.
        targets: whether a query bank may be written.
        token_maps: whether the similarity map of every token of a bank is wanted.
    """

    questions: Sequence[Sequence[int]]
    rows: Sequence[int]
    max_new_tokens: int = 128
    answer: Sequence[int] | None = None
    targets: bool = True
    token_maps: bool = False

    @property
    def slots(self) -> list[tuple[int, int]]:
        """Of each question its image, and its number among those about it."""
        return [(row, self.rows[:question].count(row)) for question, row in enumerate(self.rows)]


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Answers to Q questions.

    Attributes:
        ids: for each question those that the model wrote, `</s>` left out.
        segmentation: the masks of all N targets it wrote.
        target_rows: (N,) question of each target, in reading order.
        token_maps: of each target (L, H, W), see `token_maps`; None where they were not asked for.
    """

    ids: list[list[int]]
    segmentation: Segmentation
    target_rows: Tensor
    token_maps: tuple[Tensor, ...] | None = None


class BankGrammar:
    """Keeps a query bank whole: its first id stands for all of it, and no other of its ids can be chosen.

    Without latents `<SEG>` is free, a bank of one.

    Args:
        bank_ids: the ids of a whole bank.
        ends_itself: a begun bank stands for its latents alone, of which the model keeps some.
        targets: whether a bank may be chosen.
    """

    def __init__(self, bank_ids: tuple[int, ...], *, ends_itself: bool = False, targets: bool = True) -> None:
        self._bank = bank_ids
        self._barred = bank_ids[1:] if targets else bank_ids
        self._begun = bank_ids[:-1] if ends_itself and len(bank_ids) > 1 else bank_ids

    def choose(self, logits: Tensor) -> list[tuple[int, ...]]:
        """Greedy next ids for logits (Q, V): of each question one id, or a whole bank."""
        barred = torch.tensor(self._barred, dtype=torch.long, device=logits.device)
        chosen = logits.index_fill(1, barred, -torch.inf).argmax(dim=-1).tolist()
        return [self._begun if index == self._bank[0] else (index,) for index in chosen]

    def dictate(self, answer: Sequence[int], start: int) -> tuple[int, ...]:
        """Next ids of a given answer from `start` on: a whole bank where one stands, else one id, none at its end."""
        ahead = tuple(answer[start : start + len(self._bank)])
        return self._bank if ahead == self._bank else ahead[:1]
