"""Objective: L = L_ce + w_bce (mask + t2m + m2t) + w_dice (mask + t2m + m2t) (paper, Eq. 12).

The only place where weights multiply. Every mask term is a mean over the targets of the batch that have a pixel; for
GSVA, rejected slots count, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from anchorseg.method.head import Head, ImageTruth, Segmentation
from anchorseg.method.losses import MaskLoss, mask_loss
from anchorseg.method.modeling import AnchorSegOutput
from anchorseg.method.options import LossWeights
from dataset.batch import Batch, Conversations
from utils.geometry import Size


@dataclass(frozen=True)
class Losses:
    """The weighted total, with gradient, and every unweighted term by name, detached."""

    total: Tensor
    terms: dict[str, Tensor]


class Objective:
    """Weigh the terms that a model trains with.

    Args:
        weights: of the terms.
        head: says which terms there are beside BCE and Dice of the masks.
    """

    def __init__(self, weights: LossWeights, head: Head) -> None:
        self.weights = weights
        self.head = head

    def __call__(self, output: AnchorSegOutput, batch: Batch) -> Losses:
        """Losses of one micro-batch."""
        terms = {"ce": cross_entropy(output.logits, output.labels), **self._mask_terms(output.segmentation, batch)}
        weight_of = {"ce": self.weights.ce, "bce": self.weights.bce, "dice": self.weights.dice}
        total = torch.stack([weight_of[name.rpartition("_")[2]] * value for name, value in terms.items()]).sum()
        return Losses(total, {name: value.detach() for name, value in terms.items()})

    def _mask_terms(self, segmentation: Segmentation, batch: Batch) -> dict[str, Tensor]:
        sums: dict[str, list[Tensor]] = {}
        count = 0
        for truth in self._truths(batch.conversations):
            count += len(truth.masks)
            logits = segmentation.masks[truth.image][truth.kept]
            _add(sums, "mask", mask_loss(logits, truth.masks, ignore=truth.ignore))
            for name, loss in self.head.losses(segmentation, truth, batch.images).items():
                _add(sums, name, loss)
        if count == 0:
            # Keeps the mask path in the graph, so that every rank reduces the same gradients.
            sums["mask_bce"] = [segmentation.low_resolution.float().sum() * 0.0]
        for number, size in self._rejections(batch):
            rejected = self.head.rejected(number, size, segmentation.low_resolution)
            if rejected is not None:
                count += number
                _add(sums, "mask", rejected)
        return {name: torch.stack(values).sum() / max(count, 1) for name, values in sums.items()}

    def _rejections(self, batch: Batch) -> Iterator[tuple[int, Size]]:
        """Of each image how many slots are rejected, if any, and its size."""
        slots, targets = batch.conversations.slots.counts, batch.conversations.targets.counts
        for all_slots, present, size in zip(slots, targets, batch.images.sizes, strict=True):
            if all_slots > present:
                yield all_slots - present, size

    def _truths(self, conversations: Conversations) -> Iterator[ImageTruth]:
        """The images with a target that has a pixel."""
        for image, (present, masks) in enumerate(zip(conversations.present, conversations.masks, strict=True)):
            if not present:
                continue
            # Maps of the image's size are copied only where targets without a pixel are left out.
            kept = slice(None) if len(present) == len(masks) else list(present)
            ignore = conversations.ignore[image] if self.head.options.void_pixels == "ignore" else None
            yield ImageTruth(
                image=image,
                kept=kept,
                masks=masks[kept],
                ignore=None if ignore is None else ignore[kept],
                box=conversations.boxes[image],
                asked_in=tuple(conversations.asked_in[image][target] for target in present),
                instances=tuple(conversations.instances[image][target] for target in present)
                if conversations.instances[image]
                else (),
            )


def _add(sums: dict[str, list[Tensor]], name: str, loss: MaskLoss | Tensor) -> None:
    if isinstance(loss, Tensor):
        sums.setdefault(f"{name}_bce", []).append(loss.sum())
        return
    sums.setdefault(f"{name}_bce", []).append(loss.bce.sum())
    sums.setdefault(f"{name}_dice", []).append(loss.dice.sum())


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the supervised tokens; 0 when there are none.

    Args:
        logits: (S, V).
        labels: (S,).
    """
    if len(labels) == 0:
        return logits.float().sum()
    return F.cross_entropy(logits.float(), labels)
