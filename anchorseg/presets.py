"""Presets: the sizes of both backbones for `tiny`, `7b` and `13b`."""

from __future__ import annotations

from collections.abc import Callable

from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from anchorseg.config import AnchorSegConfig
from anchorseg.method import Method
from anchorseg.tokens import TokenRegistry
from model.sam import SamSizes

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


def tiny(vocabulary: int) -> tuple[LlavaConfig, SamSizes]:
    """A miniature of the same classes, for a CPU; nothing in it is pretrained."""
    clip = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 96,
        "patch_size": 12,
        "projection_dim": 128,
    }
    sam = SamSizes(
        image_size=192,
        patch_size=12,
        encoder_width=64,
        encoder_depth=2,
        encoder_heads=2,
        global_attention=(1,),
        window_size=8,
        prompt_width=64,
        mask_channels=16,
        decoder_heads=4,
        decoder_mlp=128,
        iou_head_width=64,
    )
    # Narrow layers start wider than 0.02, so that what they add is of the size of what they read.
    llama = {**_llama(128, 256, 2, 4), "initializer_range": 0.06}
    llava = _llava(clip, llama, vocabulary, -1)
    llava.initializer_range = 0.12
    return llava, sam


def seven_b(vocabulary: int) -> tuple[LlavaConfig, SamSizes]:
    """LLaVA-1.5-7B with CLIP ViT-L/14@336 and SAM ViT-H."""
    return _llava(CLIP_LARGE_336, _llama(4096, 11008, 32, 32), vocabulary, -2), SamSizes()


def thirteen_b(vocabulary: int) -> tuple[LlavaConfig, SamSizes]:
    """LLaVA-1.5-13B with CLIP ViT-L/14@336 and SAM ViT-H."""
    return _llava(CLIP_LARGE_336, _llama(5120, 13824, 40, 40), vocabulary, -2), SamSizes()


SIZES: dict[str, Callable[[int], tuple[LlavaConfig, SamSizes]]] = {"tiny": tiny, "7b": seven_b, "13b": thirteen_b}


def token_ids(registry: TokenRegistry) -> dict[str, object]:
    """The ids that the model looks for, as its configuration holds them."""
    return {
        "segment": registry.segment_id,
        "reject": registry.reject_id,
        "reasoning": list(registry.reasoning_ids),
        "bos": registry.bos_id,
        "eos": registry.eos_id,
    }


def preset_config(name: str, method: Method, registry: TokenRegistry) -> AnchorSegConfig:
    """The configuration of a preset, its embedding table sized for the tokenizer."""
    llava, sam = SIZES[name](len(registry))
    return AnchorSegConfig(
        llava_config=llava,
        sam=sam,
        method=method,
        tokens=registry.strings,
        token_ids=token_ids(registry),
    )
