"""The table of mask-token positions that this project adds to SAM's decoders, and what the paper trains of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MaskTokenTable:
    """What the backbones over SAM and SAM 2.1 share; mixed into an `nn.Module` with the parts named here."""

    NUM_MASK_TOKENS = 4
    prompt_width: int
    mask_decoder: nn.Module
    prompt_encoder: nn.Module
    mask_token_positions: nn.Parameter

    def _drawn_positions(self) -> Tensor:
        return torch.randn(self.NUM_MASK_TOKENS, self.prompt_width) * self.prompt_width**-0.5

    def draw_new(self, dtype: torch.dtype) -> None:
        """Draw the table of mask-token positions, which is new."""
        self.mask_token_positions = nn.Parameter(self._drawn_positions().to(dtype))

    def trained(self) -> dict[str, list[nn.Parameter]]:
        """See `MaskBackbone`; what the image encoder holds does not train."""
        return {
            "mask decoder": list(self.mask_decoder.parameters()),
            "prompt encoder": list(self.prompt_encoder.parameters()),
            "mask-token table": [self.mask_token_positions],
        }
