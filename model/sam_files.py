"""SAM's sizes, and its published files: which size a file is, from the shapes of its tensors, and loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import nn

from utils.errors import CheckpointError
from utils.geometry import SAM_MEAN, SAM_STD, PaddedView
from utils.loading import LoadReport, assign, match
from utils.tensor_files import TensorFiles


@dataclass(frozen=True, kw_only=True)
class SamSizes:
    """Sizes of SAM's three parts; the defaults are ViT-H."""

    image_size: int = 1024
    patch_size: int = 16
    encoder_width: int = 1280
    encoder_depth: int = 32
    encoder_heads: int = 16
    global_attention: tuple[int, ...] = (7, 15, 23, 31)
    window_size: int = 14
    prompt_width: int = 256
    mask_channels: int = 16
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_mlp: int = 2048
    iou_head_width: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "global_attention", tuple(self.global_attention))
        numbers = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "global_attention"}
        for name, value in numbers.items():
            if value < 1:
                raise ValueError(f"sam.{name} is {value}; it must be at least 1")
        if any(not 0 <= layer < self.encoder_depth for layer in self.global_attention):
            last = self.encoder_depth - 1
            raise ValueError(f"sam.global_attention is {self.global_attention}; layers are 0 to {last}")
        if self.image_size % self.patch_size:
            raise ValueError(f"sam.image_size {self.image_size} is not a multiple of sam.patch_size {self.patch_size}")

    @property
    def view(self) -> PaddedView:
        """How images enter."""
        return PaddedView(side=self.image_size, grid=self.grid, mean=SAM_MEAN, std=SAM_STD)

    @property
    def grid(self) -> int:
        """Side G of the feature grid."""
        return self.image_size // self.patch_size

    @property
    def low_resolution(self) -> int:
        """Side M of mask prompts and low-resolution masks."""
        return 4 * self.grid


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


def check_size(files: TensorFiles, expected: SamSizes) -> None:
    """Refuse a published file of another size.

    Raises:
        CheckpointError: naming both sizes.
    """
    found = infer_sizes({name: files.shape(name) for name in files})
    if replace(found, decoder_heads=expected.decoder_heads) != expected:
        raise CheckpointError(
            f"--vision_pretrained {files.path} is {size_name(found)}, but {size_name(expected)} is asked for; give the "
            "file of that size, or --sam_model vit_h, vit_l or vit_b"
        )


def load_published(sam: nn.Module, files: TensorFiles, dtype: torch.dtype) -> LoadReport:
    """Fill SAM from its published file; the mask-token table is new.

    Raises:
        CheckpointError: if a tensor is missing, unknown or of another shape.
    """
    shapes = {name: value.shape for name, value in sam.state_dict().items()}
    report = match(shapes, files, lambda name: name, new=("mask_token_positions",))
    assign(sam, files, report, dtype)
    return report
