"""GSVA's head: LISA's, for several expressions in a question, each answered by `<SEG>` or by `<REJ>`."""

from __future__ import annotations

import torch
from torch import Tensor

from anchorseg.method.lisa_head import LisaHead
from anchorseg.method.losses import MaskLoss, mask_loss
from anchorseg.method.options import GsvaOptions
from utils.geometry import Size


class GsvaHead(LisaHead[GsvaOptions]):
    """The baseline."""

    def rejected(self, count: int, size: Size, like: Tensor) -> MaskLoss | None:
        """See `Head`. GSVA's own code takes a mask of zero logits for each, which has no gradient."""
        if self.options.rejected_masks == "left_out":
            return None
        nothing = torch.zeros(1, *size, device=like.device)
        loss = mask_loss(nothing, nothing)
        return MaskLoss(bce=loss.bce.expand(count), dice=loss.dice.expand(count))
