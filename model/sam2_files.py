"""SAM 2.1's sizes, and its published files as transformers writes them: which size a file is, and loading it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import Sam2Config, Sam2HieraDetConfig, Sam2MaskDecoderConfig, Sam2Model, Sam2VisionConfig
from transformers.models.sam2.configuration_sam2 import Sam2PromptEncoderConfig

from utils.errors import CheckpointError
from utils.geometry import SAM_MEAN, SAM_STD, StretchedView
from utils.loading import LoadReport, assign, match, refused_values
from utils.tensor_files import TensorFiles

STAGES = 4


@dataclass(frozen=True, kw_only=True)
class PromptedSizes:
    """Sizes of the prompt encoder and the mask decoder that SAM 2.1 and SAM 3 share, and of their view."""

    # Pixels along a cell of the image embedding; Hiera's patches are 4 apart, and each stage halves the grid.
    STRIDE: ClassVar[int] = 16
    STATISTICS: ClassVar[tuple[tuple[float, float, float], tuple[float, float, float]]] = (SAM_MEAN, SAM_STD)
    SEQUENCES: ClassVar[tuple[str, ...]] = ()

    image_size: int
    prompt_width: int = 256
    mask_channels: int = 16
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_mlp: int = 2048
    iou_head_width: int = 256

    def __post_init__(self) -> None:
        for name in self.SEQUENCES:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, value in vars(self).items():
            if isinstance(value, int) and value < 1:
                raise ValueError(f"mask_config.{name} is {value}; it must be at least 1")
        self._check_encoder()
        if self.prompt_width % 8 or self.prompt_width % (2 * self.decoder_heads):
            raise ValueError(
                f"mask_config.prompt_width {self.prompt_width} is not a multiple of 8 and of {2 * self.decoder_heads}, "
                "twice decoder_heads"
            )

    def _check_encoder(self) -> None:
        """Refuse sizes of the encoder that do not fit each other."""

    def _check_blocks(self, blocks: tuple[int, ...], depth: int) -> None:
        if any(not 0 <= block < depth for block in blocks):
            raise ValueError(f"mask_config.global_attention is {blocks}; blocks are 0 to {depth - 1}")

    @property
    def view(self) -> StretchedView:
        """How images enter."""
        mean, std = self.STATISTICS
        return StretchedView(side=self.image_size, grid=self.grid, mean=mean, std=std)

    @property
    def grid(self) -> int:
        """Side G of the image embedding."""
        return self.image_size // self.STRIDE

    @property
    def low_resolution(self) -> int:
        """Side M of mask prompts and low-resolution masks."""
        return 4 * self.grid

    @property
    def feature_sides(self) -> list[list[int]]:
        """Height and width of the three levels of features, the finest first."""
        return [[factor * self.grid] * 2 for factor in (4, 2, 1)]

    def prompt_values(self) -> dict[str, int]:
        """Values of transformers' configuration of the prompt encoder."""
        return {
            "hidden_size": self.prompt_width,
            "image_size": self.image_size,
            "patch_size": self.STRIDE,
            "mask_input_channels": self.mask_channels,
        }

    def decoder_values(self) -> dict[str, int]:
        """Values of transformers' configuration of the mask decoder."""
        return {
            "hidden_size": self.prompt_width,
            "mlp_dim": self.decoder_mlp,
            "num_hidden_layers": self.decoder_depth,
            "num_attention_heads": self.decoder_heads,
            "iou_head_hidden_dim": self.iou_head_width,
        }

    @staticmethod
    def values_of(config: Any) -> dict[str, int]:
        """The sizes of this class in a configuration of transformers."""
        prompts, decoder = config.prompt_encoder_config, config.mask_decoder_config
        return {
            "image_size": prompts.image_size,
            "prompt_width": config.vision_config.fpn_hidden_size,
            "mask_channels": prompts.mask_input_channels,
            "decoder_depth": decoder.num_hidden_layers,
            "decoder_heads": decoder.num_attention_heads,
            "decoder_mlp": decoder.mlp_dim,
            "iou_head_width": decoder.iou_head_hidden_dim,
        }


@dataclass(frozen=True, kw_only=True)
class Sam2Sizes(PromptedSizes):
    """Sizes of SAM 2.1's three parts; the defaults are Hiera-L.

    Attributes:
        encoder_width: of Hiera's first stage; each stage doubles it.
        encoder_heads: of the first stage; each stage doubles them.
        blocks: of each stage.
        window_sizes: of each stage, in its cells.
        global_attention: blocks without windows, counted through all stages.
        background: side of the table of positions that is resized to the grid.
    """

    SEQUENCES = ("blocks", "window_sizes", "global_attention")

    image_size: int = 1024
    encoder_width: int = 144
    encoder_heads: int = 2
    blocks: tuple[int, ...] = (2, 6, 36, 4)
    window_sizes: tuple[int, ...] = (8, 4, 16, 8)
    global_attention: tuple[int, ...] = (23, 33, 43)
    background: int = 7

    def _check_encoder(self) -> None:
        for name in ("blocks", "window_sizes"):
            values = getattr(self, name)
            if len(values) != STAGES or min(values) < 1:
                raise ValueError(f"mask_config.{name} is {values}; give {STAGES} numbers from 1 on, one for each stage")
        self._check_blocks(self.global_attention, sum(self.blocks))
        if any(window % 2 for window in self.window_sizes[:-1]):
            raise ValueError(
                f"mask_config.window_sizes is {self.window_sizes}; all but the last are halved by the stage behind "
                "them, and must be even"
            )
        unit = 4 * self.window_sizes[0]
        if self.image_size % 32 or self.image_size % unit:
            raise ValueError(f"mask_config.image_size {self.image_size} is not a multiple of 32 and of {unit}")

    @staticmethod
    def of(config: Sam2Config) -> Sam2Sizes:
        """The sizes in a configuration of transformers."""
        hiera = config.vision_config.backbone_config
        return Sam2Sizes(
            **PromptedSizes.values_of(config),
            encoder_width=hiera.embed_dim_per_stage[0],
            encoder_heads=hiera.num_attention_heads_per_stage[0],
            blocks=tuple(hiera.blocks_per_stage),
            window_sizes=tuple(hiera.window_size_per_stage),
            global_attention=tuple(hiera.global_attention_blocks),
            background=hiera.window_positional_embedding_background_size[0],
        )

    def config(self) -> Sam2Config:
        """The configuration of transformers' `Sam2Model`."""
        widths = [self.encoder_width << stage for stage in range(STAGES)]
        hiera = Sam2HieraDetConfig(
            hidden_size=self.encoder_width,
            num_attention_heads=self.encoder_heads,
            image_size=[self.image_size] * 2,
            window_positional_embedding_background_size=[self.background] * 2,
            blocks_per_stage=list(self.blocks),
            embed_dim_per_stage=widths,
            num_attention_heads_per_stage=[self.encoder_heads << stage for stage in range(STAGES)],
            window_size_per_stage=list(self.window_sizes),
            global_attention_blocks=list(self.global_attention),
        )
        vision = Sam2VisionConfig(
            backbone_config=hiera,
            backbone_channel_list=widths[::-1],
            backbone_feature_sizes=self.feature_sides,
            fpn_hidden_size=self.prompt_width,
        )
        prompts = Sam2PromptEncoderConfig(**self.prompt_values())
        decoder = Sam2MaskDecoderConfig(**self.decoder_values())
        return Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)


_TINY = Sam2Sizes(
    encoder_width=96, encoder_heads=1, blocks=(1, 2, 7, 2), window_sizes=(8, 4, 14, 7), global_attention=(5, 7, 9)
)
PUBLISHED_SIZES: dict[str, Sam2Sizes] = {
    "tiny": _TINY,
    "small": replace(_TINY, blocks=(1, 2, 11, 2), global_attention=(7, 10, 13)),
    "base-plus": replace(
        _TINY,
        encoder_width=112,
        encoder_heads=2,
        blocks=(2, 3, 16, 3),
        global_attention=(12, 16, 20),
        background=14,
    ),
    "large": Sam2Sizes(),
}
"""The four published sizes, by the names in facebook/sam2.1-hiera-NAME."""

_OF_ENCODER = {
    "vision_encoder.": "image_encoder.vision.",
    "no_memory_embedding": "image_encoder.no_memory_embedding",
    "mask_decoder.conv_s0.": "image_encoder.conv_s0.",
    "mask_decoder.conv_s1.": "image_encoder.conv_s1.",
}
POSITIONS = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")
"""Two names of one matrix in published files; here it has the second."""
OF_VIDEO = "|".join(Sam2Model._keys_to_ignore_on_load_unexpected)
"""Names of the memory of earlier frames, which published files hold for videos."""


def own_name(name: str) -> str:
    """The name in `Sam2Backbone` of a tensor of `Sam2Model`."""
    if name == POSITIONS[0]:
        return POSITIONS[1]
    prefix = next((prefix for prefix in _OF_ENCODER if name.startswith(prefix)), "")
    return _OF_ENCODER.get(prefix, "") + name.removeprefix(prefix)


def size_name(width: int, depth: int) -> str:
    """`sam2.1-large` and so on, or the encoder's width and depth in words."""
    known = {(sizes.encoder_width, sum(sizes.blocks)): name for name, sizes in PUBLISHED_SIZES.items()}
    name = known.get((width, depth))
    return f"an encoder of width {width} and depth {depth}" if name is None else f"sam2.1-{name}"


def open_published(path: Path, expected: Sam2Sizes) -> TensorFiles:
    """A published folder or file, of which no weight is read yet.

    Raises:
        CheckpointError: if it is not SAM 2.1, or is of another size.
    """
    files = TensorFiles(path)
    blocks = "vision_encoder.backbone.blocks.{}.layer_norm1.weight"
    names = set(files)
    depth = next(number for number in count() if blocks.format(number) not in names)
    if not depth:
        raise CheckpointError(
            f"--vision_pretrained {path} holds no SAM 2.1 in transformers' layout (no {blocks.format(0)}); give a "
            "folder such as facebook/sam2.1-hiera-large, or its model.safetensors"
        )
    found = size_name(files.shape(blocks.format(0))[0], depth)
    wanted = size_name(expected.encoder_width, sum(expected.blocks))
    if found != wanted:
        raise CheckpointError(
            f"--vision_pretrained {path} is {found}, but {wanted} is asked for; give the weights of that size, or "
            "--mask_model with the size of these"
        )

    def read(values: dict[str, Any]) -> Sam2Sizes:
        return Sam2Sizes.of(Sam2Config(**{name: values[name] for name in Sam2Config.sub_configs_defaults}))

    check_config(path, expected, read)
    return files


def check_config(path: Path, expected: PromptedSizes, read: Callable[[dict[str, Any]], PromptedSizes]) -> None:
    """Refuse a folder whose config.json differs in what shapes do not show: heads, windows, global attention.

    Args:
        path: folder, or a file of weights, which says nothing.
        expected: sizes asked for.
        read: gives the sizes in what config.json holds; may raise anything.

    Raises:
        CheckpointError: naming what differs, or why the file cannot be read.
    """
    file = path / "config.json"
    if not file.is_file():
        return
    with refused_values(file):
        found = read(json.loads(file.read_text()))
    differing = [
        f"{name} {value} instead of {getattr(expected, name)}"
        for name, value in vars(found).items()
        if value != getattr(expected, name)
    ]
    if differing:
        raise CheckpointError(f"{file} has {', '.join(differing)}; give the published folder, or copy it again")


def load_published(
    backbone: nn.Module,
    files: TensorFiles,
    dtype: torch.dtype,
    *,
    rename: Callable[[str], str] = own_name,
    unused: str = OF_VIDEO,
    positions: tuple[str, str] = POSITIONS,
) -> LoadReport:
    """Fill the backbone from `open_published`; the mask-token table is new.

    Args:
        backbone: see above.
        files: see above.
        dtype: of the weights afterwards.
        rename: name in the file -> name in the backbone.
        unused: regular expression of names in the file that are known and not needed.
        positions: two names in the file of one matrix of positions.

    Raises:
        CheckpointError: if a tensor is missing, unknown or of another shape, or both matrices of positions differ.
    """
    shapes = {name: value.shape for name, value in backbone.state_dict().items()}
    second_name = "|".join(f"^{re.escape(name)}$" for name in positions)
    report = match(shapes, files, rename, unused=f"{unused}|{second_name}", new=("mask_token_positions",))
    both = [files[name] for name in positions if name in set(files)]
    if not torch.equal(both[0], both[-1]):
        raise CheckpointError(f"{files.path} has two different matrices {' and '.join(positions)}; fetch it again")
    assign(backbone, files, report, dtype)
    return report
