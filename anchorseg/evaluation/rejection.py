"""Rejection in a prompt that is given: which slots the model turns down, and the masks of all slots.

`two_passes` is the published gRefCOCO protocol, and it LEAKS THE TRUTH: the prompt has `<SEG>` behind its latents where
there is a target and a bare `<REJ>` where there is none, so that the token before a slot all but says which it is, and
every slot sees the true ones before it. `one_pass` puts a query bank into every slot and asks before the bank begins,
where nothing depends on the truth.

Letters: R rows, T positions, N slots, D language width.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from anchorseg.method.head import Segmentation
from anchorseg.method.modeling import AnchorSegModel
from dataset.batch import Batch


@dataclass(frozen=True)
class SlotPredictions:
    """Masks of N slots in reading order, and (N,) which of the slots the model rejects."""

    segmentation: Segmentation
    rejected: Tensor


def refuses(slots: Tensor, choices: Tensor, segment_id: int, reject_id: int) -> Tensor:
    """True where the first pass rejects a slot: `<SEG>` stands there and is not the choice, or `<REJ>` stands there
    and is; false where neither stands.

    Args:
        slots: ids that stand in the prompt, any shape.
        choices: the model's likeliest ids for the same places.
        segment_id: of `<SEG>`.
        reject_id: of `<REJ>`.
    """
    missed = (slots == segment_id) & (choices != segment_id)
    return missed | ((slots == reject_id) & (choices == reject_id))


def as_targets(input_ids: Tensor, segment_id: int, reject_id: int) -> Tensor:
    """Ids of the second pass: every `<REJ>` a `<SEG>`."""
    return torch.where(input_ids == reject_id, segment_id, input_ids)


def _choices(model: AnchorSegModel, hidden: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Likeliest ids (N,) for given places, from the states before them; no other logits are computed."""
    return model.language.logits(hidden[rows, columns - 1]).argmax(dim=-1)


def two_passes(model: AnchorSegModel, batch: Batch) -> SlotPredictions:
    """The published, leaking protocol: a first pass decides, a second draws a mask for every slot.

    Args:
        model: in evaluation mode.
        batch: prompts with their true answers, `<REJ>` where there is no target.
    """
    images, conversations = batch.images, batch.conversations
    segment_id, reject_id = model.config.token_ids["segment"], model.config.token_ids["reject"]
    slots = conversations.slots
    rows, ends = slots.rows, slots.columns[:, -1]
    choices = _choices(model, model.prefill(images, conversations), rows, ends)
    rejected = refuses(conversations.input_ids[rows, ends], choices, segment_id, reject_id)
    ids = as_targets(conversations.input_ids, segment_id, reject_id)
    second = dataclasses.replace(conversations, input_ids=ids)
    hidden = model.prefill(images, second)
    # Before a former <REJ> the K columns hold no latents; the published code takes what stands there.
    segmentation = model.segment(hidden, slots, model.image_context(images, second, hidden))
    return SlotPredictions(segmentation, rejected)


def one_pass(model: AnchorSegModel, batch: Batch) -> SlotPredictions:
    """Masks of all banks; a slot is rejected where `<REJ>` is likeliest just before its bank.

    Args:
        model: in evaluation mode.
        batch: prompts whose answers have a query bank in every slot.
    """
    images, conversations = batch.images, batch.conversations
    hidden = model.prefill(images, conversations)
    targets = conversations.targets
    choices = _choices(model, hidden, targets.rows, targets.columns[:, 0])
    segmentation = model.segment(hidden, targets, model.image_context(images, conversations, hidden))
    return SlotPredictions(segmentation, choices == model.config.token_ids["reject"])
