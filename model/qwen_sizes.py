"""Sizes of Qwen2.5-VL and Qwen3-VL: those that are published, and small ones of the same classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from transformers import Qwen2_5_VLConfig, Qwen3VLConfig

IMAGE_TOKENS = {"least_image_tokens": 64, "most_image_tokens": 1024}
"""A megapixel with Qwen3-VL, 0.8 with Qwen2.5-VL: its processors' own limit is 16 times as much, which no prompt of
this project has room for."""
FEW_IMAGE_TOKENS = {"least_image_tokens": 16, "most_image_tokens": 64}


def _qwen3(
    vocabulary: int,
    *,
    width: int,
    mlp: int,
    layers: int,
    heads: int,
    tied: bool,
    vision: dict[str, Any],
    head_width: int = 128,
    key_heads: int = 8,
    sections: tuple[int, int, int] = (24, 20, 20),
    spread: float = 0.02,
    tokens: dict[str, int] = IMAGE_TOKENS,
) -> Qwen3VLConfig:
    return Qwen3VLConfig(
        vision_config={"patch_size": 16, "out_hidden_size": width, "initializer_range": spread, **vision},
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": mlp,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": key_heads,
            "head_dim": head_width,
            "max_position_embeddings": 262144,
            "initializer_range": spread,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5_000_000.0,
                "mrope_section": list(sections),
                "mrope_interleaved": True,
            },
        },
        tie_word_embeddings=tied,
        **tokens,
    )


def _vision3(*, width: int, mlp: int, depth: int, stacked: tuple[int, ...]) -> dict[str, Any]:
    sizes = {"hidden_size": width, "intermediate_size": mlp, "depth": depth, "num_heads": 16}
    return {**sizes, "deepstack_visual_indexes": list(stacked), "num_position_embeddings": 2304}


_LARGE_VISION = _vision3(width=1024, mlp=4096, depth=24, stacked=(5, 11, 17))
_TINY_VISION3 = {
    **_vision3(width=64, mlp=128, depth=3, stacked=(0, 1)),
    "num_heads": 4,
    "num_position_embeddings": 64,
}

QWEN3_SIZES: dict[str, Callable[[int], Qwen3VLConfig]] = {
    "tiny": partial(
        _qwen3, width=128, mlp=256, layers=3, heads=4, key_heads=2, head_width=32, tied=True, sections=(6, 5, 5),
        spread=0.06, vision=_TINY_VISION3, tokens=FEW_IMAGE_TOKENS,
    ),
    "2b": partial(_qwen3, width=2048, mlp=6144, layers=28, heads=16, tied=True, vision=_LARGE_VISION),
    "4b": partial(_qwen3, width=2560, mlp=9728, layers=36, heads=32, tied=True, vision=_LARGE_VISION),
    "8b": partial(
        _qwen3, width=4096, mlp=12288, layers=36, heads=32, tied=False,
        vision=_vision3(width=1152, mlp=4304, depth=27, stacked=(8, 16, 24)),
    ),
}  # fmt: skip


def _qwen2_5(
    vocabulary: int,
    *,
    width: int,
    mlp: int,
    layers: int,
    heads: int,
    key_heads: int,
    sections: tuple[int, int, int],
    vision: dict[str, Any],
    spread: float = 0.02,
    tokens: dict[str, int] = IMAGE_TOKENS,
) -> Qwen2_5_VLConfig:
    return Qwen2_5_VLConfig(
        vision_config={"patch_size": 14, "out_hidden_size": width, "initializer_range": spread, **vision},
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": mlp,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": key_heads,
            "bos_token_id": None,
            "eos_token_id": None,
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 128000,
            "initializer_range": spread,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": list(sections),
            },
        },
        tie_word_embeddings=False,
        **tokens,
    )  # fmt: skip


QWEN2_5_SIZES: dict[str, Callable[[int], Qwen2_5_VLConfig]] = {
    "tiny": partial(
        _qwen2_5, width=128, mlp=256, layers=3, heads=4, key_heads=2, sections=(4, 6, 6), spread=0.06,
        vision={"hidden_size": 64, "intermediate_size": 128, "depth": 3, "num_heads": 4, "fullatt_block_indexes": [1]},
        tokens=FEW_IMAGE_TOKENS,
    ),
    "7b": partial(
        _qwen2_5, width=3584, mlp=18944, layers=28, heads=28, key_heads=4, sections=(16, 24, 24),
        vision={"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "num_heads": 16,
                "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2},
    ),
}  # fmt: skip
