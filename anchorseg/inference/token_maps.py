"""What each token of a query bank looks at (paper, Fig. 3): its similarity with the tokens that show the image."""

from __future__ import annotations

import torch
from torch import Tensor

from anchorseg.method.head import ImageContext
from anchorseg.method.query_bank import gather_states
from anchorseg.method.spatial_prior import min_max, similarity
from dataset.batch import BankPositions
from utils.geometry import tokens_to_map


def token_maps(hidden: Tensor, targets: BankPositions, context: ImageContext) -> tuple[Tensor, ...]:
    """Similarity maps of every token of N query banks, each scaled by itself as the spatial prior is (Eq. 6 and 7).

    Args:
        hidden: (R, T, D) last-layer hidden states.
        targets: of the N targets, of a model with any head.
        context: the images.

    Returns:
        For each target (L, H, W) float32 in [0, 1]: `<REAS_1>`, `<REAS_2>`, ... as far as its bank goes, and `<SEG>`.
    """
    images = context.images
    contextual, anchors = gather_states(hidden, targets)
    states = torch.cat([contextual, anchors.unsqueeze(1)], dim=1)
    count, length, _ = states.shape
    scores = similarity(states.flatten(0, 1), context.image_states[targets.rows].repeat_interleave(length, dim=0))
    valid = images.patch_valid[context.row_images[targets.rows]].repeat_interleave(length, dim=0)
    responses = min_max(scores, valid).float().unflatten(0, (count, length))
    of_targets = [
        tokens_to_map(of_target, frame, size)
        for of_image, frame, size in zip(
            responses.split(targets.counts), images.language_frames, images.sizes, strict=True
        )
        for of_target in of_image
    ]
    lengths = targets.lengths or (length,) * count
    return tuple(maps[-own:] for maps, own in zip(of_targets, lengths, strict=True))
