"""Protocols: how a sample is put to the model, and which of its masks belong to which question.

`forced`: the true answer is in the prompt, and the masks of its slots are drawn. For benchmarks with rejections this is
the published protocol of two passes, which leaks the truth (`anchorseg.rejection`). `symmetric`: every question has a
query bank in the prompt, and the model may reject it. `generate`: the model writes an answer to every question.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from anchorseg.feature_cache import FeatureCache
from anchorseg.generation import answer_questions
from anchorseg.head import Segmentation
from anchorseg.modeling import AnchorSegModel
from anchorseg.prefix import ImagePrefix, read_images
from anchorseg.rejection import Judged, one_pass, two_passes
from anchorseg.scoring import REJECTING, Reply
from anchorseg.tokens import TokenRegistry
from dataset.batch import Batch, Images
from dataset.collator import Collator
from dataset.sample import Protocol, RejectSlot, Sample, TargetSlot
from utils.errors import DataError


def slot_counts(sample: Sample, *, rejections: bool) -> list[int]:
    """Slots of each question in reading order: one for each target, or one where there is none.

    Args:
        sample: with its answers.
        rejections: whether a `RejectSlot` counts, which has a mask in the published protocol alone.

    Raises:
        DataError: if the conversations have another number of slots; they are never paired by position alone.
    """
    kinds = (TargetSlot, RejectSlot) if rejections else TargetSlot
    wanted = [max(1, len(question.targets)) for question in sample.questions]
    given = [
        sum(isinstance(part, kinds) for turn in conversation.turns for part in turn.answer or ())
        for conversation in sample.conversations
    ]
    if given != wanted and not (len(given) == 1 and given[0] == sum(wanted)):
        raise DataError(
            sample.record,
            f"its conversations have {given} slot(s) for masks, but its questions need {wanted}, in one conversation "
            "or each in its own: one for each target, or one where there is none",
        )
    return wanted


def _strongest(segmentation: Segmentation, chosen: Tensor) -> np.ndarray | None:
    """(H, W) strongest prior of some of the first image's targets, or None."""
    if segmentation.prior is None or not len(chosen):
        return None
    return segmentation.prior.maps[0][chosen].amax(dim=0).cpu().numpy()


def prepare(collator: Collator, sample: Sample, protocol: Protocol) -> Batch | Images:
    """What the model reads of a sample: its image, and its conversations where answers are not to be written."""
    return collator.images([sample.image]) if protocol == "generate" else collator([sample])


class Asker:
    """Puts samples to a model, one at a time.

    Args:
        model: in evaluation mode.
        registry: its tokenizer.
        collator: for its views and prompts; conversations of an image share their prefix.
        max_rows: most questions that are answered at once in `generate`; bounds the memory.
        max_new_tokens: longest answer in `generate`.
        cache: of SAM's features, whose store the collator has.
    """

    def __init__(
        self,
        model: AnchorSegModel,
        registry: TokenRegistry,
        collator: Collator,
        *,
        max_rows: int = 8,
        max_new_tokens: int = 128,
        cache: FeatureCache | None = None,
    ) -> None:
        self.model = model
        self.registry = registry
        self.collator = collator
        self.max_rows = max_rows
        self.max_new_tokens = max_new_tokens
        self.cache = cache

    @torch.inference_mode()
    def replies(
        self, sample: Sample, protocol: Protocol, scoring: str, prepared: Batch | Images | None = None
    ) -> list[Reply]:
        """A reply for each question of a sample.

        Args:
            sample: made for the protocol.
            protocol: how to ask.
            scoring: of its benchmark.
            prepared: of `prepare`, where it was made before.

        Raises:
            DataError: if slots or conversations do not fit the questions.
        """
        read = prepare(self.collator, sample, protocol) if prepared is None else prepared
        if isinstance(read, Images):
            return self._generated(sample, read)
        published = protocol == "forced" and scoring in REJECTING
        counts = slot_counts(sample, rejections=published)
        judged = self._judge(self._ready(read), protocol, published)
        logits = judged.segmentation.masks[0]
        # The published protocol counts a logit of 0 as mask.
        masks = logits >= 0 if published else logits > 0
        assert len(masks) == len(judged.rejected) == sum(counts), sample.record
        slots = torch.arange(len(masks), device=masks.device).split(counts)
        return [
            Reply(
                masks=masks[chosen].cpu().numpy(),
                found=not bool(judged.rejected[chosen].all()),
                prior=_strongest(judged.segmentation, chosen),
            )
            for chosen in slots
        ]

    def _judge(self, batch: Batch, protocol: Protocol, published: bool) -> Judged:
        if published:
            return two_passes(self.model, batch)
        if protocol == "symmetric":
            return one_pass(self.model, batch)
        segmentation = self.model(batch).segmentation
        return Judged(segmentation, torch.zeros_like(segmentation.iou, dtype=torch.bool))

    def _ready(self, batch: Batch) -> Batch:
        weight = next(self.model.parameters())
        return dataclasses.replace(batch.to(weight.device, weight.dtype), images=self._images_ready(batch.images))

    def _images_ready(self, images: Images) -> Images:
        weight = next(self.model.parameters())
        images = images.to(weight.device, weight.dtype)
        return images if self.cache is None else self.cache.fill(images)[0]

    def _generated(self, sample: Sample, images: Images) -> list[Reply]:
        conversations = sample.conversations
        if len(conversations) != len(sample.questions):
            raise DataError(
                sample.record,
                f"it has {len(conversations)} conversation(s) for {len(sample.questions)} question(s); "
                "generation needs one for each",
            )
        prefixes = self.collator.prefixes(1).to(next(self.model.parameters()).device)
        prefix = read_images(self.model, self._images_ready(images), prefixes)
        questions = [self.collator.prompt.branch(conversation, sample.record).ids for conversation in conversations]
        starts = range(0, len(questions), self.max_rows)
        return [reply for start in starts for reply in self._chunk(prefix, questions[start : start + self.max_rows])]

    def _chunk(self, images: ImagePrefix, questions: Sequence[Sequence[int]]) -> list[Reply]:
        """Replies to some questions about one image."""
        made = answer_questions(self.model, images, questions, [0] * len(questions), max_new_tokens=self.max_new_tokens)
        replies = []
        for row, ids in enumerate(made.ids):
            chosen = (made.target_rows == row).nonzero()[:, 0]
            replies.append(
                Reply(
                    masks=(made.segmentation.masks[0][chosen] > 0).cpu().numpy(),
                    found=len(chosen) > 0,
                    answer=self.registry.decode(ids),
                    prior=_strongest(made.segmentation, chosen),
                )
            )
        return replies
