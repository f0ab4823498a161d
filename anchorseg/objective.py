"""Objective: L = L_ce + w_bce (mask + t2m + m2t) + w_dice (mask + t2m + m2t) (paper, Eq. 12).

The only place where weights multiply. Every mask term is a mean over the targets of the batch that have a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from anchorseg import cycle
from anchorseg.losses import mask_loss
from anchorseg.method import LossWeights, Method
from anchorseg.modeling import AnchorSegOutput, Segmentation
from dataset.batch import Batch


@dataclass(frozen=True)
class Losses:
    """The weighted total, with gradient, and every unweighted term by name, detached."""

    total: Tensor
    terms: dict[str, Tensor]


class Objective:
    """Weigh the terms that the method trains with.

    Args:
        weights: of the terms.
        method: says which directions of the cycle consistency are trained.
        clip_side: side of the CLIP view in pixels.
    """

    def __init__(self, weights: LossWeights, method: Method, clip_side: int) -> None:
        self.weights = weights
        self.method = method
        self.clip_side = clip_side

    def __call__(self, output: AnchorSegOutput, batch: Batch) -> Losses:
        """Losses of one micro-batch."""
        terms = {"ce": cross_entropy(output.logits, output.labels), **self._mask_terms(output.segmentation, batch)}
        weight_of = {"ce": self.weights.ce, "bce": self.weights.bce, "dice": self.weights.dice}
        total = torch.stack([weight_of[name.rpartition("_")[2]] * value for name, value in terms.items()]).sum()
        return Losses(total, {name: value.detach() for name, value in terms.items()})

    def _mask_terms(self, segmentation: Segmentation, batch: Batch) -> dict[str, Tensor]:
        sums: dict[str, list[Tensor]] = {}
        count = 0
        for image, present in enumerate(batch.conversations.present):
            if not present:
                continue
            count += len(present)
            # Maps of the image's size are copied only where targets without a pixel are left out.
            kept = slice(None) if len(present) == segmentation.counts[image] else list(present)
            for name, values in self._image_terms(segmentation, image, kept, batch).items():
                sums.setdefault(name, []).append(values.sum())
        if count == 0:
            # Keeps the mask path in the graph, so that every rank reduces the same gradients.
            return {"mask_bce": segmentation.low_resolution.float().sum() * 0.0}
        return {name: torch.stack(values).sum() / count for name, values in sums.items()}

    def _image_terms(
        self, segmentation: Segmentation, image: int, kept: list[int] | slice, batch: Batch
    ) -> dict[str, Tensor]:
        method, prior, conversations = self.method, segmentation.prior, batch.conversations
        logits, truth = segmentation.masks[image][kept], conversations.masks[image][kept]
        ignore = conversations.ignore[image] if method.void_pixels == "ignore" else None
        ignore = None if ignore is None else ignore[kept]
        found = mask_loss(logits, truth, ignore=ignore)
        terms = {"mask_bce": found.bce, "mask_dice": found.dice}
        if prior is not None and method.token_to_mask:
            maps = prior.maps[image][kept]
            found = cycle.token_to_mask(maps, truth, scale=method.cycle_scale, shift=method.cycle_shift, ignore=ignore)
            terms |= {"t2m_bce": found.bce, "t2m_dice": found.dice}
        if prior is not None and method.mask_to_token:
            responses = prior.responses.split(segmentation.counts)[image][kept].float()
            found = cycle.mask_to_token(
                responses,
                truth,
                self.clip_side,
                sigma=method.token_sigma,
                target_sampling=method.token_target,
                target_precision=method.token_target_precision,
                scale=method.cycle_scale,
                shift=method.cycle_shift,
                ignore=ignore,
                patch_valid=batch.images.patch_valid[image] if method.prior_range == "valid" else None,
            )
            terms |= {"m2t_bce": found.bce, "m2t_dice": found.dice}
        return terms


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the supervised tokens; 0 when there are none.

    Args:
        logits: (S, V).
        labels: (S,).
    """
    if len(labels) == 0:
        return logits.float().sum()
    return F.cross_entropy(logits.float(), labels)
