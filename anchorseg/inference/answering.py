"""From questions about images that are read to answers: ids, masks, scores, maps.

Letters: A anchors of a target, L tokens of a query bank, H W original size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from torch import Tensor

from anchorseg.inference.answer import Answer, Target
from anchorseg.inference.generation import answer_questions
from anchorseg.inference.grammar import Generated
from anchorseg.inference.inputs import Asking
from anchorseg.inference.prefix import ImagePrefix
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.tokens import TokenRegistry
from dataset.collator import Collator
from dataset.sample import Conversation, TargetSlot, Turn
from dataset.templates import evaluation


@dataclass(frozen=True, kw_only=True)
class AskedImages:
    """Images that were read together: their pixels, (H, W, 3) uint8 RGB each, and what the model made of them."""

    pixels: Sequence[np.ndarray]
    prefix: ImagePrefix


@dataclass(frozen=True, kw_only=True)
class PromptedQuestion:
    """A question about image `row`: as it was asked, as it is sent, and in ids up to `ASSISTANT:`."""

    row: int
    query: str
    prompt: str
    ids: tuple[int, ...]


class Answerer:
    """A model with its tokenizer, which answers; threads may share it.

    Args:
        model: in evaluation mode.
        registry: its tokenizer.
        collator: for its views and prompts.
    """

    def __init__(self, model: AnchorSegModel, registry: TokenRegistry, collator: Collator) -> None:
        self.model, self.registry, self.collator = model, registry, collator
        before, after = evaluation.ANSWER
        self._forced = collator.prompt.answer_ids((before, TargetSlot(0), after))
        self._token_names = [registry.decode([index]) for index in model.bank_ids]

    def prepare(self, row: int, queries: object, asking: Asking, after: Answer | None = None) -> list[PromptedQuestion]:
        """Questions about image `row` as the model reads them, each behind the dialogue of `after`.

        Raises:
            InputError: see `Asking.prompts`.
            DataError: for a question that is too long.
        """
        prompts = asking.prompts(queries)
        return [
            PromptedQuestion(row=row, query=query, prompt=prompt, ids=self._ids(prompt, after))
            for query, prompt in zip(queries, prompts, strict=True)  # type: ignore[call-overload]
        ]

    def _ids(self, prompt: str, after: Answer | None) -> tuple[int, ...]:
        if after is not None:
            return self.collator.prompt.follow_up(after.dialogue, prompt, "the question")
        return self.collator.prompt.branch(Conversation((Turn(prompt, None),)), "the question").ids

    def answer(self, images: AskedImages, questions: Sequence[PromptedQuestion], asking: Asking) -> list[Answer]:
        """Answer questions, ascending by image, `asking.max_rows` at once."""
        found: list[Answer] = []
        forced = asking.mode == "mask"
        for start in range(0, len(questions), asking.max_rows):
            part = questions[start : start + asking.max_rows]
            made = answer_questions(
                self.model,
                images.prefix,
                [question.ids for question in part],
                [question.row for question in part],
                max_new_tokens=len(self._forced) if forced else asking.max_new_tokens,
                answer=self._forced if forced else None,
                targets=asking.mode != "text",
                token_maps=asking.token_maps,
            )
            found += self.answers(made, part, images.pixels, asking)
        return found

    def answers(
        self, made: Generated, questions: Sequence[PromptedQuestion], pixels: Sequence[np.ndarray], asking: Asking
    ) -> Iterator[Answer]:
        """Give each question its text and targets, on the host."""
        of_questions: list[list[Target]] = [[] for _ in questions]
        phrases = [iter(self._phrases(ids)) for ids in made.ids]
        maps = [self._named(of_target) for of_target in made.token_maps or ()] or repeat(None)
        for question, parts, token_maps in zip(made.target_rows.tolist(), _targets(made), maps, strict=False):
            of_questions[question].append(Target(**parts, phrase=next(phrases[question]), token_maps=token_maps))
        for question, ids, found in zip(questions, made.ids, of_questions, strict=True):
            complete = asking.mode == "mask" or len(ids) < asking.max_new_tokens
            yield Answer(
                query=question.query,
                prompt=question.prompt,
                text=self.registry.decode(ids),
                targets=tuple(found),
                image=pixels[question.row],
                complete=complete,
                dialogue=(*question.ids, *(ids if complete else self._without_half_bank(ids))),
            )

    def _without_half_bank(self, ids: Sequence[int]) -> Sequence[int]:
        """An answer that was cut off without the beginning of a query bank at its end, as no answer has one."""
        inner = set(self.model.bank_ids[:-1])
        whole = len(ids)
        while whole and ids[whole - 1] in inner:
            whole -= 1
        return ids[:whole]

    def _named(self, maps: Tensor) -> dict[str, np.ndarray]:
        """Maps (L, H, W) by the names of their tokens; a bank with fewer latents lacks the last ones."""
        names = [*self._token_names[: len(maps) - 1], self._token_names[-1]]
        return dict(zip(names, maps.cpu().numpy(), strict=True))

    def _phrases(self, ids: list[int]) -> list[str]:
        """The words before each `<SEG>`, from the one before it on."""
        bank = set(self.registry.bank_ids)
        phrases: list[str] = []
        run: list[int] = []
        for index in ids:
            if index == self.registry.segment_id:
                phrases.append(self.registry.decode(run).strip(" ,.:"))
                run = []
            elif index not in bank:
                run.append(index)
        return phrases


def _targets(made: Generated) -> Iterator[dict[str, Any]]:
    """Fields of `Target` of all targets in reading order."""
    found, prior = made.segmentation, made.segmentation.prior
    for image, logits in enumerate(found.masks):
        masks = logits > 0
        inside = masks.flatten(1).sum(dim=1)
        scores = (logits.sigmoid() * masks).flatten(1).sum(dim=1) / inside.clamp(min=1)
        none = [None] * len(masks)
        of_anchors = None if prior is None else prior.anchors
        for mask, score, prior_map, anchor_maps, parts in zip(
            masks.cpu().numpy(),
            scores.tolist(),
            none if prior is None else prior.maps[image].cpu().numpy(),
            none if of_anchors is None else _of_targets(of_anchors.maps[image], len(masks)),
            none if not found.parts else (found.parts[image] > 0).cpu().numpy(),
            strict=True,
        ):
            yield {"mask": mask, "score": score, "prior": prior_map, "anchor_priors": anchor_maps, "parts": parts}


def _of_targets(maps: Tensor, targets: int) -> Sequence[np.ndarray]:
    """Maps (N A, H, W) of all anchors as (A, H, W) of each of N targets."""
    return list(maps.unflatten(0, (targets, -1)).cpu().numpy()) if targets else []
