"""Loss terms of a forward pass, by the names of the files."""

from __future__ import annotations

import torch
from torch import Tensor

from anchorseg.method import cycle, losses
from anchorseg.method.head import Segmentation
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.objective import Losses, LossWeights, Objective
from dataset.batch import Batch
from tests.parity.context import Context
from tests.parity.trace import Trace
from utils import geometry


def weights_of(context: Context) -> LossWeights:
    """The weights of the published run, from config.json."""
    return LossWeights(**context.settings["loss_weights"])


def losses_of(trace: Trace, batch: Batch, model: AnchorSegModel, weights: LossWeights) -> Losses:
    """The objective of a finished pass."""
    assert trace.output is not None
    return Objective(weights, model.head)(trace.output, batch)


def weighted(found: Losses, weights: LossWeights) -> dict[str, Tensor]:
    """Loss and its shares, weighted, by the names of `train_steps.columns`."""

    def total(kind: str) -> Tensor:
        return sum((value for name, value in found.terms.items() if name.endswith(kind)), torch.zeros(()))

    return {
        "loss": found.total.detach(),
        "ce": weights.ce * found.terms["ce"],
        "mask_bce": weights.bce * total("_bce"),
        "mask_dice": weights.dice * total("_dice"),
    }


def loss_values(found: Losses, weights: LossWeights) -> dict[str, Tensor]:
    """Arrays out.*loss."""
    shares = weighted(found, weights)
    return {
        "out.loss": shares["loss"],
        "out.ce_loss": shares["ce"],
        "out.mask_bce_loss": shares["mask_bce"],
        "out.mask_dice_loss": shares["mask_dice"],
        "out.mask_loss": shares["mask_bce"] + shares["mask_dice"],
    }


def term_values(segmentation: Segmentation, batch: Batch) -> dict[str, Tensor]:
    """Arrays out.terms.* and out.mask_to_token_target.*: each image's own means, and the targets on the token grid."""
    values: dict[str, Tensor] = {}
    for image in range(len(batch.records)):
        truth = batch.conversations.masks[image]
        present = truth.flatten(1).any(dim=1)
        truth = truth[present]
        frame = batch.images.language_frames[image]
        coarse = geometry.masks_to_tokens(truth, frame)
        values[f"out.mask_to_token_target.{image}"] = cycle.gaussian_target(coarse, cycle.MASK_TO_TOKEN_KERNEL)
        values[f"out.terms.{image}"] = _terms(segmentation, image, truth, present, frame).detach()
    return values


def _terms(segmentation: Segmentation, image: int, truth: Tensor, present: Tensor, frame: geometry.Frame) -> Tensor:
    """(6,) mask BCE and Dice, token-to-mask, mask-to-token, each the mean of the image's targets; 0 without any."""
    if not present.any():
        return torch.zeros(6, dtype=torch.float64)
    assert segmentation.prior is not None
    logits, maps = segmentation.masks[image][present], segmentation.prior.maps[image][present]
    responses = segmentation.prior.responses.split(segmentation.counts)[image][present]
    found = losses.mask_loss(logits, truth)
    forth, back = cycle.token_to_mask(maps, truth), cycle.mask_to_token(responses, truth, frame)
    terms = [
        found.bce,
        found.dice,
        forth.bce,
        forth.dice,
        back.bce,
        back.dice,
    ]
    return torch.stack([term.mean() for term in terms]).double()
