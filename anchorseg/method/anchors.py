"""Several anchors a target (paper, appendix C.2): a prior each, decoded one by one or fused to one.

Letters: N targets, A anchors, K latent tokens, P image tokens, D language width, C prompt width, M low-resolution side,
H W original size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from anchorseg.method.head import Prior
from anchorseg.method.losses import MaskLoss, mask_loss
from dataset.batch import BankPositions

HIDDEN = 16
"""Channels of the fusion."""
NMS_IOU = 0.7
"""Overlap from which on two anchors have drawn the same."""


def one_each(targets: BankPositions, anchors: int) -> BankPositions:
    """Every anchor as a target of its own, the anchors of a target one after the other."""
    return BankPositions(
        rows=targets.rows.repeat_interleave(anchors),
        columns=targets.columns.repeat_interleave(anchors, dim=0),
        counts=tuple(count * anchors for count in targets.counts),
    )


def union(each: Prior, anchors: int) -> Prior:
    """The strongest of the priors of a target's anchors, at every image token and pixel."""
    return Prior(
        similarity=each.similarity.unflatten(0, (-1, anchors)).amax(dim=1),
        responses=each.responses.unflatten(0, (-1, anchors)).amax(dim=1),
        maps=tuple(maps.unflatten(0, (-1, anchors)).amax(dim=1) for maps in each.maps),
        anchors=each,
    )


def likeness(responses: Tensor) -> Tensor:
    """Mean cosine of the responses (N, A, P) of different anchors of a target, (N,) in [0, 1]; 0 for one anchor."""
    directions = F.normalize(responses.float(), dim=2)
    count = responses.shape[1]
    cosines = directions @ directions.transpose(1, 2)
    pairs = cosines.flatten(1).sum(dim=1) - cosines.diagonal(dim1=1, dim2=2).sum(dim=1)
    return pairs / max(count * (count - 1), 1)


@torch.no_grad()
def kept_by_nms(masks: Tensor, scores: Tensor, most: float = NMS_IOU) -> Tensor:
    """Which anchors of each target non-maximum suppression keeps, (N, A): from the best score on, each whose mask
    overlaps no kept one by more than `most`.

    Args:
        masks: (N, A, M, M) logits.
        scores: (N, A).
        most: IoU.
    """
    drawn = (masks > 0).flatten(2).float()
    both = drawn @ drawn.transpose(1, 2)
    areas = drawn.sum(dim=2)
    overlaps = both / (areas.unsqueeze(2) + areas.unsqueeze(1) - both).clamp(min=1) > most
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for place in scores.argsort(dim=1, descending=True).unbind(dim=1):
        own = place.unsqueeze(1)
        near = overlaps.gather(1, own.unsqueeze(2).expand(-1, 1, overlaps.shape[2]))[:, 0]
        kept = kept.scatter(1, own, ~(near & kept).any(dim=1, keepdim=True))
    return kept


def matched_loss(parts: Tensor, instances: Sequence[Tensor]) -> MaskLoss:
    """BCE and Dice of each target's anchors against its objects, (n,) means over anchors; 0 where it has no objects.

    Anchors and objects are paired so that the sum of BCE and Dice is least (Hungarian method), which the host waits
    for. An anchor that is left over learns an empty mask; an object that is left over is the union's alone.

    Args:
        parts: (n, A, H, W) mask logits.
        instances: of each target (m, H, W) boolean.
    """
    found = [_of_target(anchors, objects) for anchors, objects in zip(parts, instances, strict=True)]
    return MaskLoss(bce=torch.stack([loss.bce for loss in found]), dice=torch.stack([loss.dice for loss in found]))


def _of_target(anchors: Tensor, objects: Tensor) -> MaskLoss:
    if len(objects) == 0:
        nothing = anchors.sum() * 0.0
        return MaskLoss(bce=nothing, dice=nothing)
    with torch.no_grad():
        costs = [mask_loss(anchors, one.expand_as(anchors)) for one in objects]
        table = torch.stack([cost.bce + cost.dice for cost in costs], dim=1)
    rows, columns = linear_sum_assignment(table.cpu().numpy())
    wanted = torch.zeros_like(anchors, dtype=torch.bool)
    wanted[rows.tolist()] = objects[columns.tolist()]
    loss = mask_loss(anchors, wanted)
    return MaskLoss(bce=loss.bce.mean(), dice=loss.dice.mean())


class AnchorFusion(nn.Module):
    """Responses of A anchors to those of one prior by two convolutions over the grid (paper, Eq. 15).

    It begins as their mean, for its last layer begins at zero.
    """

    def __init__(self, anchors: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(anchors, HIDDEN, kernel_size=3, padding=1)
        self.outer = nn.Conv2d(HIDDEN, 1, kernel_size=3, padding=1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)  # type: ignore[arg-type]

    def forward(self, responses: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map (N, A, P) in [0, 1] over a grid of P tokens to (N, P) in [0, 1]."""
        maps = responses.unflatten(2, grid)
        change = self.outer(torch.relu(self.inner(maps)))
        return (maps.mean(dim=1, keepdim=True) + change).clamp(0, 1).flatten(1)
