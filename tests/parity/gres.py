"""The published gRefCOCO protocol: a first pass decides which slots are rejected, a second draws all masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from anchorseg.evaluation.rejection import as_targets, refuses
from anchorseg.method.modeling import AnchorSegModel
from dataset.batch import PADDING, BankPositions, Batch
from model.network_backbone import IMAGE_PLACEHOLDER
from tests.parity.batches import Inputs, make_batch
from tests.parity.reference import Fixture


def has_two_passes(fixture: Fixture) -> bool:
    """Whether a file follows this protocol."""
    return "out.logits_first_pass" in fixture or "gres" in fixture.path.stem.split("_")


def positions_of(batch: Batch) -> BankPositions:
    """The positions left of every <SEG>, whatever stands there."""
    return batch.conversations.slots


def rejected(input_ids: Tensor, logits: Tensor, segment_id: int, reject_id: int) -> Tensor:
    """(R, T) true at the slots that the first pass rejects.

    Args:
        input_ids: (R, T) with the true slots.
        logits: (R, T, V) of the first pass.
        segment_id: of <SEG>.
        reject_id: of <REJ>.
    """
    return refuses(input_ids, logits.argmax(dim=-1).roll(1, dims=1), segment_id, reject_id)


def with_rejections(input_ids: np.ndarray, segment_id: int, reject_id: int, latents: tuple[int, ...]) -> np.ndarray:
    """The ids before the protocol replaced <REJ>: every <SEG> without its latents was one."""
    original = input_ids.copy()
    for row, column in np.argwhere(input_ids == segment_id):
        if tuple(input_ids[row, max(column - len(latents), 0) : column]) != latents:
            original[row, column] = reject_id
    return original


def check_first_pass(fixture: Fixture, inputs: Inputs, model: AnchorSegModel) -> tuple[Inputs, Tensor]:
    """Compare the first pass.

    Returns:
        The inputs of the second pass, every <REJ> a <SEG>, and the ids with the decisions of the first.
    """
    *latents, segment_id = model.bank_ids
    reject_id: int = model.config.token_ids["reject"]
    original = with_rejections(inputs.input_ids, segment_id, reject_id, tuple(latents))
    note = "" if np.array_equal(original, inputs.input_ids) else "in.input_ids is without its <REJ>; put back"
    first = make_batch(replace(inputs, input_ids=original), model, share_prefix=False)
    logits = model.llava.logits(model.prefill(first.images, first.conversations))
    eager = model.method.padding_attention == "plain"
    where = first.conversations.segments.numpy() != PADDING if eager else None
    fixture.check("out.logits_first_pass", logits, where=where, optional=eager, note=note)
    after = as_targets(torch.from_numpy(original), segment_id, reject_id).numpy()
    fixture.check("in.input_ids_after", after, optional=eager)
    slots = (first.conversations.input_ids == segment_id) | (first.conversations.input_ids == reject_id)
    refused = rejected(first.conversations.input_ids, logits, segment_id, reject_id)
    decided = torch.where(first.conversations.input_ids == IMAGE_PLACEHOLDER, 0, first.conversations.input_ids)
    decided = torch.where(slots, torch.where(refused, reject_id, segment_id), decided)
    return replace(inputs, input_ids=after), decided
