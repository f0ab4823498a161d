"""PixelLM's language backbone: LLaVA with CLIP at 448 pixels, whose states are reduced before a projector that trains.

Letters: B images, P image tokens, D language width.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlavaConfig

from model.language_files import LanguageFiles, load_published
from model.llava import STATISTICS, LlavaBackbone
from model.llava_files import CLIP_PREFIX, check_size, open_llava, published_pattern
from model.pixel_view import MarkedView, resized_positions, states_of
from utils.geometry import Size
from utils.loading import LoadReport

SIDES = {"tiny": 96, "mini": 192, "7b": 448, "13b": 448}
"""Sides of the view by size; CLIP's own are 96, 144 and 336."""
PROJECTOR = "model.multi_modal_projector."


class PixelLlavaBackbone(LlavaBackbone):
    """Half of CLIP's patches along a side, as in PixelLM's own code, and a projector of twice the language width."""

    reduced_to = (1, 2)
    projector_factor = 2
    shifted_positions = False

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)
        vision = config.vision_config
        self._side = vision.image_size // vision.patch_size
        if self.projector_factor != 1:
            projector, wide = self.network.model.multi_modal_projector, self.projector_factor * self.width
            projector.linear_1 = nn.Linear(vision.hidden_size, wide)
            projector.linear_2 = nn.Linear(wide, self.width)

    @classmethod
    def preset(cls, size: str, vocabulary: int) -> LlavaConfig:
        """See `LanguageBackbone`."""
        return cls._enlarged(LlavaBackbone.preset(size, vocabulary), size)

    @classmethod
    def _enlarged(cls, config: LlavaConfig, size: str) -> LlavaConfig:
        config = copy.deepcopy(config)
        config.vision_config.image_size = SIDES[size]
        config.image_seq_length = cls._tokens(config) ** 2
        return config

    @classmethod
    def _tokens(cls, config: LlavaConfig) -> int:
        """Tokens along a side."""
        part, whole = cls.reduced_to
        return config.vision_config.image_size // config.vision_config.patch_size * part // whole

    @classmethod
    def view(cls, config: LlavaConfig, statistics: str, *, cropped: bool = False) -> MarkedView:
        """The marked view; its grid is that of the tokens."""
        if cropped:
            raise ValueError("clip_view crop does not go with PixelLM's language backbone; use padded")
        mean, std = STATISTICS[statistics]
        return MarkedView(side=config.vision_config.image_size, grid=cls._tokens(config), mean=mean, std=std)

    @classmethod
    def open_published(cls, folder: Path, tower: Path | None, size: str) -> LanguageFiles:
        """See `LanguageBackbone`."""
        files = open_llava(folder, tower)
        check_size(files.config, LlavaBackbone.preset(size, 0), folder=folder, tower=tower, size=size)
        enlarged = cls._enlarged(files.config, size)
        return LanguageFiles(enlarged, files.tokenizer, files.sources)

    def load_published(self, files: LanguageFiles, dtype: torch.dtype, pieces: int) -> list[LoadReport]:
        """See `LanguageBackbone`; CLIP's positions are resized, and a wider projector keeps its drawn weights."""
        positions = f"{CLIP_PREFIX}embeddings.position_embedding.weight"

        def resize(table: Tensor) -> Tensor:
            return resized_positions(table, self._side, shifted=self.shifted_positions)

        drawn = (PROJECTOR,) if self.projector_factor != 1 else ()
        unused = published_pattern(PROJECTOR) if drawn else "$^"
        return load_published(
            self.network, files, dtype, pieces, self.table_names, adapt={positions: resize}, drawn=drawn, unused=unused
        )

    def image_features(self, pixels: Tensor, patch_valid: Tensor, grids: tuple[Size, ...]) -> Tensor:
        """See `LanguageBackbone`; pixels are (B, 4, S, S), and tell CLIP what is padding."""
        (states,) = states_of(self.network.model.vision_tower, pixels, (self._clip_layers,))
        side = self._side
        maps = states.transpose(1, 2).unflatten(2, (side, side))
        tokens = round(patch_valid.shape[1] ** 0.5)
        reduced = F.interpolate(maps.float(), (tokens, tokens), mode="bilinear", align_corners=False).to(maps.dtype)
        return self.network.model.multi_modal_projector(reduced.flatten(2).transpose(1, 2))

    def trained(self) -> dict[str, list[nn.Parameter]]:
        """See `LanguageBackbone`."""
        return {"projector": list(self.network.model.multi_modal_projector.parameters())}

    def draw_new(self, dtype: torch.dtype) -> None:
        """Draw the projector, where it is wider than LLaVA's."""
        if self.projector_factor == 1:
            return
        projector: Any = self.network.model.multi_modal_projector
        for name in ("linear_1", "linear_2"):
            layer = getattr(projector, name)
            fresh = nn.Linear(layer.in_features, layer.out_features)
            layer.weight.data, layer.bias.data = fresh.weight.data.to(dtype), fresh.bias.data.to(dtype)


class PixelLlava24Backbone(PixelLlavaBackbone):
    """Three quarters of the patches along a side (24 x 24 tokens of 32 x 32), as in AnchorSeg's copy of PixelLM."""

    reduced_to = (3, 4)
    projector_factor = 1
    shifted_positions = True
