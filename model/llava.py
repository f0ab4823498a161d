"""LLaVA-1.5 through transformers: image features, hidden states under an explicit mask, logits.

Letters: B images, R rows (sequences), T positions, P image tokens, D language width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    Cache,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from model.fused_norms import fuse_norms
from model.language_files import LanguageFiles, load_published
from model.llava_files import NETWORK, check_size, from_transformers, open_llava
from model.network_backbone import NetworkBackbone
from model.zeroing_attention import ATTENTION, last_states
from utils.geometry import CLIP_MEAN, CLIP_STD, SAM_MEAN, SAM_STD, CroppedView, PaddedView, Size
from utils.loading import LoadReport
from utils.prompt_template import VICUNA

STATISTICS = {"clip": (CLIP_MEAN, CLIP_STD), "sam": (SAM_MEAN, SAM_STD)}
"""Mean and standard deviation of the view, by the names of `Method.clip_statistics`."""

CLIP_LARGE_336 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}


def _llama(width: int, mlp: int, layers: int, heads: int) -> dict:
    return {
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
    }


def _llava(clip: dict, llama: dict, vocabulary: int, feature_layer: int) -> LlavaConfig:
    return LlavaConfig(
        vision_config=CLIPVisionConfig(**clip),
        text_config=LlamaConfig(**llama, vocab_size=vocabulary, pad_token_id=None),
        vision_feature_layer=feature_layer,
        image_seq_length=(clip["image_size"] // clip["patch_size"]) ** 2,
    )


def _small(vocabulary: int, *, layers: int, mlp: int, image_size: int, patch_size: int) -> LlavaConfig:
    """The same classes for a CPU: as many layers in CLIP as in LLaMA, both of width 128."""
    clip = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "image_size": image_size,
        "patch_size": patch_size,
        "projection_dim": 128,
    }
    # Narrow layers start wider than 0.02, so that what they add is of the size of what they read.
    config = _llava(clip, {**_llama(128, mlp, layers, 4), "initializer_range": 0.06}, vocabulary, -1)
    config.initializer_range = 0.12
    return config


SIZES: dict[str, Callable[[int], LlavaConfig]] = {
    "tiny": partial(_small, layers=2, mlp=256, image_size=96, patch_size=12),
    "mini": partial(_small, layers=4, mlp=224, image_size=144, patch_size=16),
    "7b": lambda vocabulary: _llava(CLIP_LARGE_336, _llama(4096, 11008, 32, 32), vocabulary, -2),
    "13b": lambda vocabulary: _llava(CLIP_LARGE_336, _llama(5120, 13824, 40, 40), vocabulary, -2),
}


class LlavaBackbone(NetworkBackbone):
    """The parts of `LlavaForConditionalGeneration`, each called by itself.

    A row is a sequence whose positions and visibility the caller decides, so that one image prefix can
    serve several conversations, whether each has a row of its own or all share one.
    """

    saved_as = "llava"
    vocabulary_tables = ("network.model.language_model.embed_tokens", "network.lm_head")
    kept_unquantized = ("network.model.vision_tower", "network.model.multi_modal_projector", "network.lm_head")
    template = VICUNA
    tiny_tokenizer = "tiny_tokenizer.model"

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__()
        self.width: int = config.text_config.hidden_size
        config._attn_implementation = dict(ATTENTION)
        # LLaVA-1.5 takes the states of the last layer but one: the layers after it are loaded and saved, but not run.
        self._clip_layers = range(config.vision_config.num_hidden_layers + 1)[config.vision_feature_layer]
        self.network: Any = LlavaForConditionalGeneration(config)
        fuse_norms(self.language_model)

    @staticmethod
    def read_config(values: dict[str, Any] | LlavaConfig) -> LlavaConfig:
        """See `LanguageBackbone`."""
        return values if isinstance(values, LlavaConfig) else LlavaConfig(**values)

    @staticmethod
    def preset(size: str, vocabulary: int) -> LlavaConfig:
        """LLaVA-1.5-7B and -13B with CLIP ViT-L/14@336, and two small ones of the same classes."""
        return SIZES[size](vocabulary)

    @staticmethod
    def view(config: LlavaConfig, statistics: str, *, cropped: bool = False) -> PaddedView:
        """The padded view of CLIP, or its own crop."""
        vision, (mean, std) = config.vision_config, STATISTICS[statistics]
        kind = CroppedView if cropped else PaddedView
        return kind(side=vision.image_size, grid=vision.image_size // vision.patch_size, mean=mean, std=std)

    @staticmethod
    def open_published(folder: Path, tower: Path | None, size: str) -> LanguageFiles:
        """See `LanguageBackbone`; `tower` is CLIP's folder, for LLaVA's original layout."""
        files = open_llava(folder, tower)
        check_size(files.config, SIZES[size](0), folder=folder, tower=tower, size=size)
        return files

    def load_published(self, files: LanguageFiles, dtype: torch.dtype, pieces: int) -> list[LoadReport]:
        """See `LanguageBackbone`."""
        return load_published(self.network, files, dtype, pieces, self.table_names)

    @classmethod
    def module_name(cls, name: str) -> str:
        """See `LanguageBackbone`; transformers saves LLaVA under its first release's names."""
        if not name.startswith(NETWORK):
            return name
        return NETWORK + (from_transformers(name.removeprefix(NETWORK)) or name)

    @property
    def lm_head(self) -> Any:
        """The projection from D to the vocabulary."""
        return self.network.lm_head

    def image_features(self, pixels: Tensor, patch_valid: Tensor, grids: tuple[Size, ...]) -> Tensor:
        """Encode images and project them to the language width (CLIP, then the two-layer projector).

        Args:
            pixels: (B, 3, S, S) normalized CLIP views.
            patch_valid: (B, P) boolean; padding patches are masked as keys in every CLIP layer.
            grids: not needed, for all are CLIP's.

        Returns:
            (B, P, D) features, row-major over the patch grid.
        """
        keys = torch.cat([patch_valid.new_ones(len(patch_valid), 1), patch_valid], dim=1)[:, None, None, :]
        tower = self.network.model.vision_tower
        states = tower.pre_layrnorm(tower.embeddings(pixels))
        for layer in tower.encoder.layers[: self._clip_layers]:
            states = layer(states, keys)
        return self.network.model.multi_modal_projector(states[:, 1:])

    def embed(self, input_ids: Tensor, features: Tensor, image_start: int) -> Tensor:
        """Look up token embeddings and put each row's image features at its placeholders.

        Args:
            input_ids: (R, T) ids with `IMAGE_PLACEHOLDER` at the P columns from `image_start` on.
            features: (R, P, D) features of each row's image.
            image_start: first column of the placeholders.
        """
        embeddings = self.language_model.embed_tokens(input_ids.clamp(min=0))
        return embeddings.slice_scatter(
            features.to(embeddings.dtype), dim=1, start=image_start, end=image_start + features.shape[1]
        )

    def hidden_states(
        self, embeddings: Tensor, positions: Tensor, visible: Tensor, cache: Cache | None = None
    ) -> Tensor:
        """Last-layer states after the final RMSNorm.

        Args:
            embeddings: (R, T, D).
            positions: (R, T) rotary positions.
            visible: (R, T, S) boolean, true where position t may see key s (S = cached + T).
            cache: keys and values of earlier positions, extended in place.

        Returns:
            (R, T, D) states.
        """
        return last_states(self.language_model, embeddings, positions, visible, cache)

    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary logits (..., V) of states (..., D)."""
        return self.lm_head(hidden)
