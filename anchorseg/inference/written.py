"""From the ids that a model wrote, and the states it wrote them with, to masks."""

from __future__ import annotations

import torch
from torch import Tensor

from anchorseg.inference.grammar import Asked, Generated
from anchorseg.inference.prefix import ImagePrefix
from anchorseg.inference.token_maps import token_maps
from anchorseg.method.modeling import AnchorSegModel
from dataset.batch import BankPositions, move

NO_ID = -1
"""Stands where there is no id, or none that counts."""


def segment_written(
    model: AnchorSegModel,
    images: ImagePrefix,
    asked: Asked,
    written: list[list[int]],
    *,
    ids: Tensor,
    owners: Tensor,
    hidden: Tensor,
) -> Generated:
    """Decode the masks of all targets that stand in answers.

    Args:
        model: in evaluation mode.
        images: that were asked about.
        asked: the Q questions.
        written: answer to each, in ids.
        ids: (B, S) of the sequences that were read, on the host.
        owners: (B, S) number of the question that a column belongs to, on the host; below 0 elsewhere.
        hidden: (B, S, D) last-layer hidden states.
    """
    # On the host, for every question about a value on a GPU waits for it.
    found = model.bank_rule.locate(_without_questions(ids, owners, asked, model.bank_ids[-1]), model.bank_ids)
    of_targets = owners[found.rows, found.columns[:, -1]].to(hidden.device)
    targets: BankPositions = move(found, hidden.device, hidden.dtype)
    context = model.image_context(images.images, images.sequences, images.hidden, images.mask_features.result())
    return Generated(
        ids=written,
        segmentation=model.segment(hidden, targets, context),
        target_rows=of_targets,
        token_maps=token_maps(hidden, targets, context) if asked.token_maps else None,
    )


def _without_questions(ids: Tensor, owners: Tensor, asked: Asked, segment_id: int) -> Tensor:
    """The ids without those of questions in which targets stand: a dialogue's earlier answers."""
    earlier = [number for number, question in enumerate(asked.questions) if segment_id in question]
    ids = ids.clone() if earlier else ids
    for number in earlier:
        row = asked.rows[number]
        (columns,) = torch.nonzero(owners[row] == number, as_tuple=True)
        ids[row, columns[: len(asked.questions[number])]] = NO_ID
    return ids
