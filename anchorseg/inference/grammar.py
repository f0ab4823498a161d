"""What a model writes: ids one by one or a whole query bank, and what comes of them.

Letters: Q questions, N targets, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anchorseg.method.head import Segmentation


@dataclass(frozen=True)
class Generated:
    """For each question the ids that the model wrote, `</s>` left out, and the masks of all targets it wrote.

    `target_rows` (N,) gives the question of each target, in reading order.
    """

    ids: list[list[int]]
    segmentation: Segmentation
    target_rows: Tensor


class BankGrammar:
    """Keeps a query bank whole: its first id stands for all of it, and no other of its ids can be chosen.

    Without latents `<SEG>` is free, a bank of one.

    Args:
        bank_ids: the ids of a whole bank.
        ends_itself: a begun bank stands for its latents alone, of which the model keeps some.
    """

    def __init__(self, bank_ids: tuple[int, ...], *, ends_itself: bool = False) -> None:
        self._bank = bank_ids
        self._begun = bank_ids[:-1] if ends_itself and len(bank_ids) > 1 else bank_ids

    def choose(self, logits: Tensor) -> list[tuple[int, ...]]:
        """Greedy next ids for logits (Q, V): of each question one id, or a whole bank."""
        inner = torch.tensor(self._bank[1:], dtype=torch.long, device=logits.device)
        chosen = logits.index_fill(1, inner, -torch.inf).argmax(dim=-1).tolist()
        return [self._begun if index == self._bank[0] else (index,) for index in chosen]

    def dictate(self, answer: Sequence[int], start: int) -> tuple[int, ...]:
        """Next ids of a given answer from `start` on: a whole bank where one stands, else one id, none at its end."""
        ahead = tuple(answer[start : start + len(self._bank)])
        return self._bank if ahead == self._bank else ahead[:1]
