"""Published LLaVA-1.5 and CLIP folders: their configuration, and the names of their tensors.

Two layouts are in use. transformers': one folder with everything (`llava-hf/llava-1.5-7b-hf`). The original one:
LLaMA's names plus `mm_projector` (`liuhaotian/llava-v1.5-7b`), with CLIP in a folder of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from model.language_files import LanguageFiles, LanguageSource, check_decoder, damaged
from utils.errors import CheckpointError
from utils.files import read_json
from utils.loading import LoadReport, assign, match, refused_values
from utils.tensor_files import TensorFiles

ORIGINAL_NAMES: tuple[tuple[str, str], ...] = (
    ("model.language_model.embed_tokens.", "model.embed_tokens."),
    ("model.language_model.layers.", "model.layers."),
    ("model.language_model.norm.", "model.norm."),
    ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ("lm_head.", "lm_head."),
)
"""Beginnings of names: `LlavaForConditionalGeneration`'s, and the original layout's."""

CLIP_PREFIX = "model.vision_tower."
NETWORK = "llava.network."
"""Beginning of its names in saved models of this project."""
ROTARY_BUFFERS = r"rotary_emb\.inv_freq$|\.position_ids$"
"""Constants that older files carry; transformers computes them."""
CLIP_TEXT_SIDE = r"^(text_model|text_projection|visual_projection)\.|^logit_scale$"
"""The half of CLIP that LLaVA has no use for."""

_TRANSFORMERS_NAMES: tuple[tuple[str, str], ...] = (
    (r"^(?:model\.)?language_model\.model\.", "model.language_model."),
    (r"^(?:model\.)?language_model\.lm_head\.", "lm_head."),
    (r"^(?:model\.)?language_model\.", "model.language_model."),
    (r"^(?:model\.)?vision_tower\.(?:vision_model\.)?", CLIP_PREFIX),
    (r"^(?:model\.)?multi_modal_projector\.", "model.multi_modal_projector."),
    (r"^lm_head\.", "lm_head."),
)


def open_llava(folder: Path, clip_folder: Path | None) -> LanguageFiles:
    """Open a LLaVA-1.5 in either layout.

    Args:
        folder: of `--version`.
        clip_folder: of `--vision_tower`, for the original layout.

    Raises:
        CheckpointError: if a file is missing, CLIP is given where the folder holds its own or is not given where it
            does not, or the weights are delta weights.
    """
    tokenizer = folder / "tokenizer.model"
    config = read_config(folder)
    if not tokenizer.is_file():
        raise CheckpointError(f"{folder} holds no tokenizer.model; fetch the complete LLaVA-1.5 folder")
    files = TensorFiles(folder)
    if is_original_layout(config):
        refuse_delta(folder, files, "model.norm.weight")
        if clip_folder is None:
            raise CheckpointError(
                f"{folder} holds no CLIP (LLaVA's original layout); give --vision_tower, a folder of "
                f"{config.get('mm_vision_tower', 'openai/clip-vit-large-patch14-336')}"
            )
        clip = clip_config(clip_folder)
        language = LanguageSource(files, from_original, lambda name: not name.startswith(CLIP_PREFIX), ROTARY_BUFFERS)
        tower = LanguageSource(
            TensorFiles(clip_folder),
            from_clip,
            lambda name: name.startswith(CLIP_PREFIX),
            f"{ROTARY_BUFFERS}|{CLIP_TEXT_SIDE}",
        )
        return LanguageFiles(original_config(folder, clip), tokenizer.read_bytes(), (language, tower))
    if config.get("model_type") != "llava" or "text_config" not in config:
        raise CheckpointError(
            f"{folder} is no LLaVA-1.5: its model_type is {config.get('model_type')!r}; --version takes "
            "llava-hf/llava-1.5-7b-hf or liuhaotian/llava-v1.5-7b, or a model folder of this project"
        )
    if clip_folder is not None:
        raise CheckpointError(
            f"--vision_tower {clip_folder} is not used: {folder} is in transformers' layout and holds its own CLIP; "
            "leave the flag out"
        )
    refuse_delta(folder, files, "language_model.model.norm.weight")
    whole = LanguageSource(files, from_transformers, lambda name: True, ROTARY_BUFFERS)
    with refused_values(folder / "config.json"):
        parsed = LlavaConfig.from_dict(config)
    return LanguageFiles(parsed, tokenizer.read_bytes(), (whole,))


def rename_prefix(name: str, pairs: tuple[tuple[str, str], ...]) -> str | None:
    """Replace the beginning of a name by the table (to, from); None if no entry fits."""
    return next((to + name.removeprefix(old) for to, old in pairs if name.startswith(old)), None)


def from_original(name: str) -> str | None:
    """Name in the original layout to `LlavaForConditionalGeneration`'s."""
    return rename_prefix(name, ORIGINAL_NAMES)


def from_transformers(name: str) -> str | None:
    """Name in transformers' layout, of any of its releases, to today's."""
    for pattern, replacement in _TRANSFORMERS_NAMES:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return None


def from_clip(name: str) -> str | None:
    """Name in a CLIP folder (whole CLIP or vision tower alone) to that of LLaVA's vision tower."""
    if re.search(CLIP_TEXT_SIDE, name):
        return None
    return CLIP_PREFIX + name.removeprefix("vision_model.")


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a folder.

    Raises:
        CheckpointError: if it is not there or is no JSON.
    """
    path = folder / "config.json"
    try:
        config: dict[str, Any] = read_json(path, fail=damaged, kind=dict)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; give a complete model folder") from None
    return config


def is_original_layout(config: dict[str, Any]) -> bool:
    """Whether a configuration is of the original layout: LLaMA's sizes at top level, and a named CLIP."""
    return "text_config" not in config and "mm_hidden_size" in config


def clip_config(folder: Path) -> CLIPVisionConfig:
    """The vision configuration of a CLIP folder.

    Raises:
        CheckpointError: if the folder holds no CLIP.
    """
    config = read_config(folder)
    vision = config.get("vision_config", config)
    if "clip" not in str(vision.get("model_type", "")) + str(config.get("model_type", "")):
        raise CheckpointError(
            f"{folder}: model_type is {config.get('model_type')!r}; --vision_tower needs a CLIP folder, such as "
            "openai/clip-vit-large-patch14-336"
        )
    with refused_values(folder / "config.json"):
        return CLIPVisionConfig(**{key: value for key, value in vision.items() if key not in ("model_type", "dtype")})


def original_config(folder: Path, clip: CLIPVisionConfig) -> LlavaConfig:
    """The configuration of a folder in the original layout, joined with its CLIP.

    Raises:
        CheckpointError: for an option of the published code that LLaVA-1.5 does not use.
    """
    config = read_config(folder)
    expected = {
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_feature": "patch",
        "mm_hidden_size": clip.hidden_size,
        "rope_scaling": None,
    }
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise CheckpointError(f"{folder}: {key} is {config[key]!r}, but LLaVA-1.5 with this CLIP has {value!r}")
    text_keys = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "hidden_act", "rms_norm_eps", "max_position_embeddings", "initializer_range",
    )  # fmt: skip
    with refused_values(folder / "config.json"):
        text = LlamaConfig(
            **{key: config[key] for key in text_keys if key in config},
            rope_parameters={"rope_type": "default", "rope_theta": config.get("rope_theta", 10000.0)},
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=None,
            tie_word_embeddings=False,
        )
        return LlavaConfig(
            vision_config=clip,
            text_config=text,
            vision_feature_layer=config.get("mm_vision_select_layer", -2),
            image_seq_length=(clip.image_size // clip.patch_size) ** 2,
        )


def refuse_delta(folder: Path, files: TensorFiles, norm: str) -> None:
    """Refuse weights that are differences to LLaMA's, which early LLaVA releases were.

    The gains of the final norm lie around 1; their difference to another model's lies around 0.

    Raises:
        CheckpointError: if the folder or its configuration says "delta", or the gains do.
    """
    named = "delta" in folder.name.lower() or "delta" in str(read_config(folder).get("_name_or_path", "")).lower()
    small = norm in files and float(files[norm].float().abs().mean()) < 0.1
    if named or small:
        raise CheckpointError(
            f"{folder} holds delta weights (differences to LLaMA's), not a full model; add them to LLaMA with the "
            "script of their release, or use LLaVA-1.5, which is published whole"
        )


def check_size(found: LlavaConfig, expected: LlavaConfig, *, folder: Path, tower: Path | None, size: str) -> None:
    """Refuse a published LLaVA-1.5 of another size.

    Raises:
        CheckpointError: naming both sizes.
    """
    check_decoder(found, expected, folder=folder, size=size)
    vision, view = found.vision_config, expected.vision_config
    if (vision.image_size, vision.patch_size) != (view.image_size, view.patch_size):
        raise CheckpointError(
            f"{tower or folder} holds a CLIP for {vision.image_size} pixels in patches of "
            f"{vision.patch_size}, but LLaVA-1.5 has {view.image_size} and {view.patch_size}; give "
            "openai/clip-vit-large-patch14-336"
        )


def load_tower(
    tower: nn.Module, files: TensorFiles, dtype: torch.dtype, resize: Callable[[Tensor], Tensor]
) -> LoadReport:
    """Fill a CLIP without its last norm from a CLIP or LLaVA folder; its table of positions is resized.

    Raises:
        CheckpointError: if a tensor is missing, unknown or of another shape.
    """

    within_llava = any("vision_tower." in name for name in files)

    def own(name: str) -> str | None:
        renamed = from_transformers(name) if within_llava else from_clip(name)
        return renamed.removeprefix(CLIP_PREFIX) if renamed and renamed.startswith(CLIP_PREFIX) else None

    shapes = {name: value.shape for name, value in tower.state_dict().items()}
    table = "embeddings.position_embedding.weight"
    # The norm after the last layer is not needed, nor all of LLaVA that is not CLIP.
    unused = rf"{ROTARY_BUFFERS}|{CLIP_TEXT_SIDE}|post_layernorm\."
    unused += r"|^(?!.*vision_tower\.)" if within_llava else ""
    report = match(shapes, files, own, unused=unused, longer=(table,))
    assign(tower, files, report, dtype, {table: resize})
    return report


def published_pattern(beginning: str) -> str:
    """Regular expression of the published names, in either layout, of tensors whose own names begin so."""
    originals = {original for own, original in ORIGINAL_NAMES if own.startswith(beginning)}
    names = {beginning, beginning.removeprefix("model."), *originals}
    return "|".join(rf"^(?:model\.)?{re.escape(name.removeprefix('model.'))}" for name in sorted(names))
