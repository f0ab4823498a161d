"""SAM 3 for prompts on one image, through transformers' `Sam3TrackerModel`; called as SAM 2.1 is.

Letters: G side of the image embedding (72), W side of a block's window or G, N = W W cells, E width of a head.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Sam3TrackerModel

from model.sam2 import Sam2Backbone
from model.sam3_files import Sam3Sizes, load_published, open_published
from utils.errors import SettingsError
from utils.loading import LoadReport
from utils.tensor_files import TensorFiles

MINIATURE = Sam3Sizes(
    image_size=168,
    encoder_width=32,
    encoder_heads=2,
    encoder_depth=3,
    encoder_mlp=64,
    window=5,
    global_attention=(2,),
    table_side=5,
    prompt_width=64,
    decoder_heads=4,
    decoder_mlp=128,
    iou_head_width=64,
)
"""The same classes, small; neither window nor table divides its grid of 12."""


class Turns(nn.Module):
    """Rotary angles of a block's cells, computed in float32 where they are needed.

    transformers keeps frequencies and positions as buffers that are in no file: casting the model to bf16 would round
    them, and a model that is built without memory would lack them.

    Args:
        side: W.
        step: what a cell adds to the position, so that the whole grid has the range of one window.
        width: E.
        base: of the frequencies.
    """

    def __init__(self, side: int, step: float, width: int, base: float) -> None:
        super().__init__()
        self.side, self.step, self.width, self.base = side, step, width, base

    def forward(self, states: Tensor, _positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (1, N, E), float32, on the device of the states."""
        half, side = self.width // 2, self.side
        exponents = torch.arange(0, half, 2, dtype=torch.float32, device=states.device) / half
        places = torch.arange(side, dtype=torch.float32, device=states.device) * self.step
        angles = places[:, None] * (1.0 / self.base**exponents)
        columns, rows = angles.expand(side, -1, -1), angles[:, None].expand(-1, side, -1)
        turns = torch.cat([columns, rows], dim=-1).flatten(0, 1)[None].repeat_interleave(2, dim=-1)
        return turns.cos(), turns.sin()


class Sam3Backbone(Sam2Backbone):
    """SAM 3's image encoder, prompt encoder and mask decoder; what finds objects by words has no part here.

    Args:
        sizes: of the parts.
        positions: see `Sam2Backbone`.
    """

    PUBLISHED = "sam3"
    saved_as = "sam3"
    Sizes = Sam3Sizes
    Whole = Sam3TrackerModel
    _no_split_modules = ["Sam3ViTLayer"]

    def __init__(self, sizes: Any, positions: str = "float32") -> None:
        super().__init__(sizes, positions)
        transformer = self.image_encoder.vision.backbone
        base = transformer.config.rope_parameters["rope_theta"]
        for layer in transformer.layers:
            side = layer.window_size or sizes.grid
            layer.rotary_emb = Turns(side, sizes.window / side, sizes.encoder_width // sizes.encoder_heads, base)

    @classmethod
    def preset(cls, size: str) -> Sam3Sizes:
        """The published size with every published size, and a small one of the same classes."""
        return MINIATURE if size in ("tiny", "mini") else Sam3Sizes()

    @staticmethod
    def published_sizes(name: str) -> Sam3Sizes:
        """See `MaskBackbone`; SAM's sizes have no meaning here."""
        raise SettingsError(
            f"--sam_model {name} is a size of SAM, which SAM 3 does not have; use --sam_model preset: SAM 3 is "
            "published in one size"
        )

    @staticmethod
    def open_published(path: Path, sizes: Sam3Sizes) -> TensorFiles:
        """See `MaskBackbone`."""
        return open_published(path, sizes)

    def load_published(self, files: TensorFiles, dtype: torch.dtype) -> LoadReport:
        """See `MaskBackbone`."""
        return load_published(self, files, dtype)
