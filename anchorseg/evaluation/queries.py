"""What each token of a query bank looks at (paper, Fig. 3): its similarity map, and how much of it the mask holds.

Letters: L tokens of a query bank, H W original size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from anchorseg.inference.processor import AnchorSegProcessor
from anchorseg.inference.token_maps import token_maps
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.tokens import TokenRegistry
from dataset.batch import Batch


@dataclass(frozen=True, kw_only=True)
class BankResponse:
    """Similarity maps of the targets of one image, and their masks.

    Attributes:
        maps: (n, L, H, W) float32 in [0, 1], of `<REAS_1>` to `<REAS_K>` and `<SEG>`; each is scaled by itself.
        masks: (n, H, W) boolean, as the model draws them.
    """

    maps: np.ndarray
    masks: np.ndarray


@torch.inference_mode()
def bank_responses(model: AnchorSegModel, batch: Batch) -> BankResponse:
    """Similarity of every token of the query banks with the tokens that show the image, as the prior takes `<SEG>`'s.

    Args:
        model: in evaluation mode, of any head.
        batch: one image, with answers.
    """
    images, conversations = batch.images, batch.conversations
    hidden = model.prefill(images, conversations)
    targets = conversations.targets
    context = model.image_context(images, conversations, hidden)
    masks = model.segment(hidden, targets, context).masks[0] > 0
    maps = torch.stack(token_maps(hidden, targets, context))
    return BankResponse(maps=maps.cpu().numpy(), masks=masks.cpu().numpy())


def given_answer(model: AnchorSegModel, registry: TokenRegistry, image: np.ndarray, query: str) -> Batch:
    """One query about one image with the answer of forced evaluation, one target, where the model is.

    Args:
        model: whose views and device it is for.
        registry: its tokenizer.
        image: (H, W, 3) uint8 RGB.
        query: a phrase, a sentence or a whole prompt.
    """
    weight = next(model.parameters())
    return AnchorSegProcessor(model.config, registry)(image, query).to(weight.device, weight.dtype)


def inside_share(response: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Share of each map's sum that lies inside a mask, 0 to 1; of an empty map 0.

    Args:
        response: (L, H, W), at least 0.
        mask: (H, W) boolean.

    Returns:
        (L,).
    """
    total = response.sum(axis=(1, 2), dtype=np.float64)
    inside = response[:, mask].sum(axis=1, dtype=np.float64)
    return np.divide(inside, total, out=np.zeros_like(total), where=total > 0)
