"""Qwen2.5-VL and Qwen3-VL through transformers: image features, hidden states under an explicit mask, logits.

Letters: B images, R rows (sequences), T positions, P image tokens, N patches, D language width, V vocabulary,
S layers behind the first that read image tokens too (DeepStack), E = (1 + S) D.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    Cache,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from model.fused_norms import fuse_norms
from model.language_files import LanguageFiles, load_published
from model.lora import tied_logits
from model.network_backbone import NetworkBackbone
from model.qwen_files import MODULE, check_config, check_size, from_published, open_qwen
from model.qwen_sizes import QWEN2_5_SIZES, QWEN3_SIZES
from model.qwen_view import QwenView
from model.zeroing_attention import ATTENTION, last_states
from utils.geometry import CLIP_MEAN, CLIP_STD, Size
from utils.loading import LoadReport
from utils.prompt_template import QWEN, QWEN_WITH_SYSTEM, PromptTemplate

EMBEDDING = "network.model.language_model.embed_tokens"
HALF = (127.5, 127.5, 127.5)


class QwenBackbone(NetworkBackbone):
    """The parts of Qwen3-VL, each called by itself; see `LlavaBackbone`.

    Where the vocabulary tables are tied there is one, which the head reads too.
    """

    saved_as = "qwen"
    kept_unquantized = ("network.model.visual", "network.lm_head")
    template: PromptTemplate = QWEN
    tiny_tokenizer = "tiny_tokenizer.json"
    MODEL_TYPE: ClassVar[str] = "qwen3_vl"
    Config: ClassVar[Any] = Qwen3VLConfig
    Network: ClassVar[Any] = Qwen3VLForConditionalGeneration
    SIZES: ClassVar[dict[str, Callable[[int], Any]]] = QWEN3_SIZES
    STATISTICS: ClassVar[tuple[tuple[float, float, float], ...]] = (HALF, HALF)

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.width: int = config.text_config.hidden_size
        config._attn_implementation = dict(ATTENTION)
        self._stacked = len(getattr(config.vision_config, "deepstack_visual_indexes", ()))
        self.tied: bool = config.tie_word_embeddings
        self.vocabulary_tables = (EMBEDDING,) if self.tied else (EMBEDDING, "network.lm_head")
        # Tied by `logits`, so that there is no second name for one tensor in anything that is saved or divided.
        untied = copy.deepcopy(config)
        untied.tie_word_embeddings = False
        self.network: Any = self.Network(untied)
        if self.tied:
            del self.network.lm_head
        fuse_norms(self.language_model, type(self.language_model.norm))
        if self._stacked:
            self.language_model._deepstack_process = _add_features

    @classmethod
    def read_config(cls, values: Any) -> Any:
        """See `LanguageBackbone`."""
        return check_config(values if isinstance(values, cls.Config) else cls.Config(**values))

    @classmethod
    def preset(cls, size: str, vocabulary: int) -> Any:
        """The published sizes, and a small one of the same classes."""
        return cls.SIZES[size](vocabulary)

    @classmethod
    def view(cls, config: Any, statistics: str, *, cropped: bool = False) -> QwenView:
        """Its processor's view; `statistics` are its own.

        Raises:
            ValueError: see `LanguageBackbone`.
        """
        if cropped:
            raise ValueError("clip_view is 'crop', but Qwen-VL reads whole images; allowed: padded")
        vision, (mean, std) = config.vision_config, cls.STATISTICS
        return QwenView(
            patch=vision.patch_size,
            merge=vision.spatial_merge_size,
            least=config.least_image_tokens,
            most=config.most_image_tokens,
            mean=mean,
            std=std,
        )

    @classmethod
    def open_published(cls, folder: Path, tower: Path | None, size: str) -> LanguageFiles:
        """See `LanguageBackbone`; there is no tower of its own."""
        files = open_qwen(folder, tower, cls.MODEL_TYPE, cls.read_config)
        check_size(files.config, cls.SIZES[size](0), folder=folder, size=size)
        return files

    def load_published(self, files: LanguageFiles, dtype: torch.dtype, pieces: int) -> list[LoadReport]:
        """See `LanguageBackbone`."""
        return load_published(self.network, files, dtype, pieces, self.table_names)

    @classmethod
    def module_name(cls, name: str) -> str:
        """See `LanguageBackbone`."""
        return MODULE + from_published(name.removeprefix(MODULE)) if name.startswith(MODULE) else name

    def image_features(self, pixels: Tensor, patch_valid: Tensor, grids: tuple[Size, ...]) -> Tensor:
        """Encode images and merge their patches.

        Args:
            pixels: (B, N, X) patches of `QwenView`, zeros behind those of an image that has fewer.
            patch_valid: not needed, for grids tell as much.
            grids: (rows, columns) of each image's tokens.

        Returns:
            (B, P, E): what the first layer reads, then what is added behind each of the first S layers; zeros behind
            the tokens of an image that has fewer than P.
        """
        vision = self.network.model.visual.config
        merge, frames = vision.spatial_merge_size, vision.temporal_patch_size
        tokens = [rows * columns for rows, columns in grids]
        packed = torch.cat([image[: count * merge**2] for image, count in zip(pixels, tokens, strict=True)])
        # An image is a film of equal frames.
        patches = packed.unflatten(1, (3, 1, -1)).expand(-1, -1, frames, -1).flatten(1)
        sizes = torch.tensor([(1, rows * merge, columns * merge) for rows, columns in grids], device=pixels.device)
        outputs = self.network.model.visual(patches, grid_thw=sizes, return_dict=True)
        features = torch.cat([outputs.pooler_output, *getattr(outputs, "deepstack_features", ())], dim=-1)
        return pad_sequence(list(features.split(tokens)), batch_first=True)

    def embed(self, input_ids: Tensor, features: Tensor, image_start: int) -> Tensor:
        """See `LanguageBackbone`; zeros are added to text behind the first S layers."""
        embeddings = self.embed_tokens(input_ids.clamp(min=0))
        embeddings = pad(embeddings, (0, features.shape[2] - self.width))
        return embeddings.slice_scatter(
            features.to(embeddings.dtype), dim=1, start=image_start, end=image_start + features.shape[1]
        )

    def hidden_states(
        self, embeddings: Tensor, positions: Tensor, visible: Tensor, cache: Cache | None = None
    ) -> Tensor:
        """See `LanguageBackbone`."""
        first, *further = embeddings.split(self.width, dim=-1)
        stacked = {"deepstack_visual_embeds": further} if further else {}
        axes = positions if positions.ndim == 2 else positions.permute(2, 0, 1)
        return last_states(self.language_model, first, axes, visible, cache, **stacked)

    def logits(self, hidden: Tensor) -> Tensor:
        """See `LanguageBackbone`."""
        return tied_logits(self.language_model.embed_tokens, hidden) if self.tied else self.network.lm_head(hidden)


def _add_features(hidden: Tensor, _: None, features: Tensor) -> Tensor:
    """In place of transformers' own, which searches for image tokens: here text has zeros."""
    return hidden + features


class Qwen25Backbone(QwenBackbone):
    """The parts of Qwen2.5-VL, whose decoder reads image tokens in its first layer alone."""

    template = QWEN_WITH_SYSTEM
    MODEL_TYPE = "qwen2_5_vl"
    Config = Qwen2_5_VLConfig
    Network = Qwen2_5_VLForConditionalGeneration
    SIZES = QWEN2_5_SIZES
    STATISTICS = (CLIP_MEAN, CLIP_STD)
