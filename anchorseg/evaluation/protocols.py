"""Protocols: how a sample is put to the model, and which of its masks belong to which question."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from anchorseg.evaluation.rejection import SlotPredictions, one_pass, two_passes
from anchorseg.evaluation.scoring import Reply, Scoring
from anchorseg.inference.feature_cache import FeatureCache
from anchorseg.inference.generation import answer_questions
from anchorseg.inference.prefix import ImagePrefix, prefill_images
from anchorseg.method.head import Segmentation
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.tokens import TokenRegistry
from dataset.batch import Batch, Images, move
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


class Responder:
    """What every way of asking needs.

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

    def ready(self, batch: Batch) -> Batch:
        """The batch where the model is, with stored features where there is a cache."""
        weight = next(self.model.parameters())
        return Batch(
            records=batch.records,
            images=self.images_ready(batch.images),
            conversations=move(batch.conversations, weight.device, weight.dtype),
        )

    def images_ready(self, images: Images) -> Images:
        """The images where the model is, with stored features where there is a cache."""
        weight = next(self.model.parameters())
        images = images.to(weight.device, weight.dtype)
        return images if self.cache is None else self.cache.fill(images)[0]


class AnswerProtocol(ABC):
    """A way of asking: what the model reads of a sample, and what it replies to its questions.

    Attributes:
        leaks: whether the prompt gives the answers away.
    """

    leaks = False

    def prepare(self, collator: Collator, sample: Sample) -> Batch | Images:
        """What the model reads, made in any process: here image and conversations."""
        return collator([sample])

    @abstractmethod
    def replies(self, responder: Responder, sample: Sample, prepared: Batch | Images) -> list[Reply]:
        """A reply for each question of a sample.

        Raises:
            DataError: if slots or conversations do not fit the questions.
        """


class Forced(AnswerProtocol):
    """The true answer is in the prompt, and the masks of its slots are drawn (all published numbers)."""

    rejections = False
    """Whether a `<REJ>` in the prompt has a mask, too."""

    def replies(self, responder: Responder, sample: Sample, prepared: Batch | Images) -> list[Reply]:
        """See `AnswerProtocol`."""
        assert isinstance(prepared, Batch)
        counts = slot_counts(sample, rejections=self.rejections)
        predicted = self.judge(responder.model, responder.ready(prepared))
        logits = predicted.segmentation.masks[0]
        masks = self.drawn(logits).cpu().numpy()
        assert len(logits) == len(predicted.rejected) == sum(counts), sample.record
        slots = torch.arange(len(logits), device=logits.device).split(counts)
        starts = np.cumsum(counts)[:-1]
        return [
            Reply(
                masks=own,
                found=not bool(predicted.rejected[chosen].all()),
                prior=_strongest(predicted.segmentation, chosen),
                logits=part,
            )
            for chosen, own, part in zip(slots, np.split(masks, starts), logits.split(counts), strict=True)
        ]

    def judge(self, model: AnchorSegModel, batch: Batch) -> SlotPredictions:
        """Masks of all slots, of which none is rejected."""
        segmentation = model(batch).segmentation
        return SlotPredictions(segmentation, torch.zeros_like(segmentation.iou, dtype=torch.bool))

    def drawn(self, logits: Tensor) -> Tensor:
        """The masks of logits."""
        return logits > 0


class PublishedRejection(Forced):
    """`forced` for benchmarks with rejections: the published protocol of two passes, which leaks the truth."""

    leaks = True
    rejections = True

    def judge(self, model: AnchorSegModel, batch: Batch) -> SlotPredictions:
        """See `anchorseg.evaluation.rejection.two_passes`."""
        return two_passes(model, batch)

    def drawn(self, logits: Tensor) -> Tensor:
        """The published protocol counts a logit of 0 as mask."""
        return logits >= 0


class Symmetric(Forced):
    """Every question has a query bank in the prompt, and the model may reject it."""

    def judge(self, model: AnchorSegModel, batch: Batch) -> SlotPredictions:
        """See `anchorseg.evaluation.rejection.one_pass`."""
        return one_pass(model, batch)


class Generate(AnswerProtocol):
    """The model writes an answer to every question; without `<SEG>` there is no mask."""

    def prepare(self, collator: Collator, sample: Sample) -> Batch | Images:
        """The image alone."""
        return collator.images([sample.image])

    def replies(self, responder: Responder, sample: Sample, prepared: Batch | Images) -> list[Reply]:
        """See `AnswerProtocol`."""
        assert isinstance(prepared, Images)
        conversations = sample.conversations
        if len(conversations) != len(sample.questions):
            raise DataError(
                sample.record,
                f"it has {len(conversations)} conversation(s) for {len(sample.questions)} question(s); "
                "generation needs one for each",
            )
        prefixes = responder.collator.prefixes(prepared.language_frames).to(next(responder.model.parameters()).device)
        prefix = prefill_images(responder.model, responder.images_ready(prepared), prefixes)
        questions = [
            responder.collator.prompt.branch(conversation, sample.record).ids for conversation in conversations
        ]
        starts = range(0, len(questions), responder.max_rows)
        return [
            reply
            for start in starts
            for reply in _written(responder, prefix, questions[start : start + responder.max_rows])
        ]


def _written(responder: Responder, images: ImagePrefix, questions: Sequence[Sequence[int]]) -> list[Reply]:
    """Replies that the model writes to some questions about one image."""
    made = answer_questions(
        responder.model, images, questions, [0] * len(questions), max_new_tokens=responder.max_new_tokens
    )
    logits = made.segmentation.masks[0]
    masks = (logits > 0).cpu().numpy()
    # Targets are in the order of the questions, so that each question's are views.
    counts = torch.bincount(made.target_rows.cpu(), minlength=len(questions)).tolist()
    slots, starts = torch.arange(len(logits)).split(counts), np.cumsum(counts)[:-1]
    return [
        Reply(
            masks=own,
            found=len(own) > 0,
            answer=responder.registry.decode(ids),
            prior=_strongest(made.segmentation, chosen),
            logits=part,
            cut=len(ids) >= responder.max_new_tokens,
        )
        for ids, chosen, own, part in zip(made.ids, slots, np.split(masks, starts), logits.split(counts), strict=True)
    ]


PROTOCOLS: dict[Protocol, AnswerProtocol] = {"forced": Forced(), "symmetric": Symmetric(), "generate": Generate()}
_REJECTING: dict[Protocol, AnswerProtocol] = {**PROTOCOLS, "forced": PublishedRejection()}


def answer_protocol(protocol: Protocol, scoring: Scoring) -> AnswerProtocol:
    """How a protocol asks a benchmark of a scoring."""
    return (_REJECTING if scoring.rejects else PROTOCOLS)[protocol]
