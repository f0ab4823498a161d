"""SAM 3's sizes, and its published file as transformers writes it: of its parts only those that prompts need."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Sam3TrackerConfig, Sam3TrackerMaskDecoderConfig, Sam3TrackerPromptEncoderConfig
from transformers.models.sam3.configuration_sam3 import Sam3VisionConfig, Sam3ViTConfig

from model import sam2_files
from model.sam2_files import PromptedSizes
from utils.errors import CheckpointError
from utils.loading import LoadReport
from utils.tensor_files import TensorFiles

HALF = (127.5, 127.5, 127.5)
SCALES = (4.0, 2.0, 1.0)
"""Levels of features against the grid; SAM 3 makes one of 0.5 too, and drops it before it decodes."""


@dataclass(frozen=True, kw_only=True)
class Sam3Sizes(PromptedSizes):
    """Sizes of SAM 3's image encoder and of its decoder for prompts; the defaults are the published size.

    Attributes:
        encoder_width: of the vision transformer.
        encoder_mlp: width within its blocks.
        window: side of the windows of blocks without global attention, in cells; a ragged edge is padded.
        global_attention: blocks without windows.
        table_side: side of the table of positions, which is repeated over the grid.
    """

    STRIDE = 14
    STATISTICS = (HALF, HALF)
    SEQUENCES = ("global_attention",)

    image_size: int = 1008
    encoder_width: int = 1024
    encoder_heads: int = 16
    encoder_depth: int = 32
    encoder_mlp: int = 4736
    window: int = 24
    global_attention: tuple[int, ...] = (7, 15, 23, 31)
    table_side: int = 24

    def _check_encoder(self) -> None:
        self._check_blocks(self.global_attention, self.encoder_depth)
        if self.image_size % self.STRIDE:
            raise ValueError(f"mask_config.image_size {self.image_size} is not a multiple of {self.STRIDE}")
        # Each head turns pairs of values, half of them by the column and half by the row.
        if self.encoder_width % (4 * self.encoder_heads):
            raise ValueError(
                f"mask_config.encoder_width {self.encoder_width} is not a multiple of {4 * self.encoder_heads}, four "
                "times encoder_heads"
            )

    @staticmethod
    def of(config: Sam3TrackerConfig) -> Sam3Sizes:
        """The sizes in a configuration of transformers."""
        vit: Any = config.vision_config.backbone_config
        return Sam3Sizes(
            **PromptedSizes.values_of(config),
            encoder_width=vit.hidden_size,
            encoder_heads=vit.num_attention_heads,
            encoder_depth=vit.num_hidden_layers,
            encoder_mlp=vit.intermediate_size,
            window=vit.window_size,
            global_attention=tuple(vit.global_attn_indexes),
            table_side=vit.pretrain_image_size // vit.patch_size,
        )

    def config(self) -> Sam3TrackerConfig:
        """The configuration of transformers' `Sam3TrackerModel`."""
        vit = Sam3ViTConfig(
            hidden_size=self.encoder_width,
            intermediate_size=self.encoder_mlp,
            num_hidden_layers=self.encoder_depth,
            num_attention_heads=self.encoder_heads,
            image_size=self.image_size,
            patch_size=self.STRIDE,
            window_size=self.window,
            global_attn_indexes=list(self.global_attention),
            pretrain_image_size=self.table_side * self.STRIDE,
        )
        vision = Sam3VisionConfig(
            backbone_config=vit,
            fpn_hidden_size=self.prompt_width,
            backbone_feature_sizes=self.feature_sides,
            scale_factors=list(SCALES),
        )
        return Sam3TrackerConfig(
            vision_config=vision,
            prompt_encoder_config=Sam3TrackerPromptEncoderConfig(**self.prompt_values()),
            mask_decoder_config=Sam3TrackerMaskDecoderConfig(**self.decoder_values()),
        )


POSITIONS = (f"tracker_model.{sam2_files.POSITIONS[0]}", f"tracker_model.{sam2_files.POSITIONS[1]}")
"""Two names of one matrix in the published file; here it has the second, without its beginning."""
BACKBONE = "detector_model.vision_encoder.backbone."
_PLACES = {BACKBONE: "vision_encoder.backbone.", "tracker_neck.": "vision_encoder.neck.", "tracker_model.": ""}
NOT_NEEDED = "|".join(
    (
        # What finds objects by words, from its neck on.
        rf"^detector_model\.(?!{BACKBONE.removeprefix('detector_model.')})",
        rf"^tracker_neck\.fpn_layers\.{len(SCALES)}\.",
        r"^tracker_model\.(memory_|mask_downsample|object_pointer_proj|temporal_positional_encoding_projection_layer|"
        r"no_memory_positional_encoding|no_object_pointer|occlusion_spatial_embedding_parameter)",
    )
)
"""Names of the published file that prompts on one image do not need."""


def own_name(name: str) -> str:
    """The name in `Sam3Backbone` of a tensor of the published file."""
    prefix = next((prefix for prefix in _PLACES if name.startswith(prefix)), "")
    return sam2_files.own_name(_PLACES.get(prefix, "") + name.removeprefix(prefix))


def open_published(path: Path, expected: Sam3Sizes) -> TensorFiles:
    """The published folder or its file, of which no weight is read yet.

    Raises:
        CheckpointError: if it is not SAM 3, or is of another size.
    """
    files = TensorFiles(path)
    layers = BACKBONE + "layers.{}.layer_norm1.weight"
    names = set(files)
    depth = next(number for number in count() if layers.format(number) not in names)
    if not depth:
        raise CheckpointError(
            f"--vision_pretrained {path} holds no SAM 3 in transformers' layout (no {layers.format(0)}); give the "
            "folder facebook/sam3, or its model.safetensors"
        )
    width = files.shape(layers.format(0))[0]
    if (width, depth) != (expected.encoder_width, expected.encoder_depth):
        raise CheckpointError(
            f"--vision_pretrained {path} has an encoder of width {width} and depth {depth} instead of "
            f"{expected.encoder_width} and {expected.encoder_depth}; give the weights of that size, as facebook/sam3 "
            "holds them for the published one"
        )

    def read(values: dict[str, Any]) -> Sam3Sizes:
        values = values.get("tracker_config", values)
        return Sam3Sizes.of(
            Sam3TrackerConfig(**{name: values[name] for name in Sam3TrackerConfig.sub_configs_defaults})
        )

    sam2_files.check_config(path, expected, read)
    return files


def load_published(backbone: nn.Module, files: TensorFiles, dtype: torch.dtype) -> LoadReport:
    """Fill the backbone from `open_published`; see `sam2_files.load_published`."""
    return sam2_files.load_published(backbone, files, dtype, rename=own_name, unused=NOT_NEEDED, positions=POSITIONS)
