"""Published SAM files: which size a file is, from the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from model.sam import SamSizes
from utils.errors import CheckpointError

PUBLISHED_SIZES: dict[str, SamSizes] = {
    "vit_b": SamSizes(encoder_width=768, encoder_depth=12, encoder_heads=12, global_attention=(2, 5, 8, 11)),
    "vit_l": SamSizes(encoder_width=1024, encoder_depth=24, encoder_heads=16, global_attention=(5, 11, 17, 23)),
    "vit_h": SamSizes(),
}
"""The three published sizes, by the names of the segment-anything package."""


def infer_sizes(shapes: Mapping[str, torch.Size]) -> SamSizes:
    """Sizes of a SAM from its tensors' shapes.

    The number of heads of the mask decoder leaves no trace in shapes; every published SAM has 8.

    Args:
        shapes: tensor name, as in a published file -> shape.

    Raises:
        CheckpointError: if the tensors are not SAM's.
    """
    try:
        _, grid, _, width = shapes["image_encoder.pos_embed"]
        patch = shapes["image_encoder.patch_embed.proj.weight"][-1]
        depth = _count(shapes, "image_encoder.blocks.{}.norm1.weight")
        spans = [shapes[f"image_encoder.blocks.{block}.attn.rel_pos_h"] for block in range(depth)]
        mask_channels = shapes["prompt_encoder.mask_downscaling.6.weight"][1]
        return SamSizes(
            image_size=grid * patch,
            patch_size=patch,
            encoder_width=width,
            encoder_depth=depth,
            encoder_heads=width // spans[0][1],
            global_attention=tuple(block for block, (span, _) in enumerate(spans) if span == 2 * grid - 1),
            window_size=(min(span for span, _ in spans) + 1) // 2,
            prompt_width=shapes["image_encoder.neck.0.weight"][0],
            mask_channels=mask_channels,
            decoder_depth=_count(shapes, "mask_decoder.transformer.layers.{}.norm1.weight"),
            decoder_mlp=shapes["mask_decoder.transformer.layers.0.mlp.lin1.weight"][0],
            iou_head_width=shapes["mask_decoder.iou_prediction_head.layers.0.weight"][0],
        )
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"the tensors are not those of a SAM: {error} is missing or has another rank") from None


def size_name(sizes: SamSizes) -> str:
    """`vit_b`, `vit_l`, `vit_h`, or the width and depth of the encoder in words."""
    named = (name for name, known in PUBLISHED_SIZES.items() if known == sizes)
    return next(named, f"an encoder of width {sizes.encoder_width} and depth {sizes.encoder_depth}")


def _count(shapes: Mapping[str, torch.Size], pattern: str) -> int:
    count = 0
    while pattern.format(count) in shapes:
        count += 1
    return count
