"""PixelLM's head: a codebook of tokens for each target, some for each scale, fused to one query a scale.

Letters: N targets, L scales (2), K + 1 tokens of a target, D language width, C prompt width.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anchorseg.method.head import Head, ImageContext, ImageTruth, Segmentation, decode
from anchorseg.method.losses import MaskLoss
from anchorseg.method.options import PixelOptions
from anchorseg.method.query_bank import gather_states, projection
from dataset.batch import BankPositions, Images
from model.backbones import MaskBackbone
from model.pixel_decoder import SCALES
from model.pixel_masks import PixelBackbone


class Codebook(nn.Module):
    """States (N, K + 1, D) of the tokens to queries (N, L, C): projected, weighed, and summed for each scale.

    The published weights are all 1 / (K + 1), so that a query is half the mean of its tokens; they do not train.
    """

    def __init__(self, width: int, prompt_width: int, tokens: int, *, trained_weights: bool) -> None:
        super().__init__()
        self.projection = projection(width, prompt_width)
        weights = torch.full((SCALES, tokens // SCALES), 1 / tokens)
        self.weights = nn.Parameter(weights, requires_grad=trained_weights)

    def forward(self, states: Tensor) -> Tensor:
        """See the class."""
        return self.fuse(self.projection(states))

    def fuse(self, projected: Tensor) -> Tensor:
        """Queries (N, L, C) of projected states (N, K + 1, C), in the order of the tokens."""
        return (projected.unflatten(1, self.weights.shape) * self.weights.unsqueeze(2)).sum(dim=2)


class PixelHead(Head[PixelOptions]):
    """The baseline, over the mask backbone `pixellm`."""

    def __init__(self, options: PixelOptions, width: int, prompt_width: int) -> None:
        super().__init__(options, width, prompt_width)
        trained = options.codebook_weights == "trained"
        self.codebook = Codebook(width, prompt_width, options.bank_size, trained_weights=trained)
        self.modules = {"codebook": self.codebook}

    def segment(
        self, hidden: Tensor, targets: BankPositions, context: ImageContext, masks: MaskBackbone
    ) -> Segmentation:
        """See `Head`."""
        contextual, last = gather_states(hidden, targets)
        queries = self.codebook(torch.cat([contextual, last.unsqueeze(1)], dim=1))
        features = cast(PixelBackbone, masks).projected(context.mask_features)
        return decode(masks, features[context.row_images[targets.rows]], queries, targets, context.images)

    def losses(self, segmentation: Segmentation, truth: ImageTruth, images: Images) -> dict[str, MaskLoss | Tensor]:
        """See `Head`: `overlap`, if it is asked for."""
        if not self.options.overlap_loss:
            return {}
        logits = segmentation.masks[truth.image][truth.kept]
        return {"overlap": overlap_loss(logits, truth.masks, truth.asked_in)}

    def trained(self) -> dict[str, list[nn.Parameter]]:
        """See `Head`."""
        groups = {"query projections": list(self.codebook.projection.parameters())}
        if self.options.codebook_weights == "trained":
            groups["codebook weights"] = [self.codebook.weights]
        return groups


def overlap_loss(logits: Tensor, targets: Tensor, asked_in: tuple[int, ...]) -> Tensor:
    """PixelLM's target refinement: BCE where two or more masks of a conversation are drawn, (n,) means over all pixels.

    Args:
        logits: (n, H, W).
        targets: (n, H, W) boolean.
        asked_in: number of the conversation of each mask.
    """
    drawn, number = logits >= 0, torch.tensor(asked_in, device=logits.device)
    together = (number.unsqueeze(1) == number).to(logits.dtype)
    overlap = torch.einsum("nm,mhw->nhw", together, drawn.to(logits.dtype)) >= 2
    bce = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none")
    return (bce * overlap).flatten(1).mean(dim=1)
