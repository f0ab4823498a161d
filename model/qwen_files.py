"""Qwen2.5-VL and Qwen3-VL as they are published: a folder with configuration, `tokenizer.json` and safetensors."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.language_files import LanguageFiles, LanguageSource, check_decoder, damaged
from model.qwen_sizes import IMAGE_TOKENS
from utils.errors import CheckpointError
from utils.files import read_json
from utils.loading import refused_values
from utils.tensor_files import TensorFiles

MODULE = "qwen.network."
"""Beginning of its names in saved models of this project."""
TIED_HEAD = r"^lm_head\."
"""A second copy of a tied table, which some files carry."""
SECTIONS = (24, 20, 20)
"""Of rotary frequencies, where a configuration names none."""
_SAME = {
    "text_config": ("num_attention_heads", "num_key_value_heads", "rope_parameters"),
    "vision_config": (
        "depth", "num_heads", "patch_size", "spatial_merge_size", "temporal_patch_size", "window_size",
        "fullatt_block_indexes", "deepstack_visual_indexes",
    ),
}  # fmt: skip
_NAMES = ((r"^visual\.", "model.visual."), (r"^model\.(?!visual\.|language_model\.)", "model.language_model."))


def from_published(name: str) -> str:
    """Name in a published file, of any release of transformers, to today's."""
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def open_qwen(folder: Path, tower: Path | None, model_type: str, read_config: Callable[[Any], Any]) -> LanguageFiles:
    """Open a Qwen-VL.

    Args:
        folder: of `--version`.
        tower: of `--vision_tower`, which it has no use for.
        model_type: of its configuration.
        read_config: its configuration from a dictionary.

    Raises:
        CheckpointError: if a file is missing or damaged, or it is another model.
    """
    if tower is not None:
        raise CheckpointError(f"--vision_tower {tower} is not used: {folder} holds its own encoder; leave the flag out")
    try:
        values = read_json(folder / "config.json", fail=damaged, kind=dict)
        tokenizer = (folder / "tokenizer.json").read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{error.filename} is missing; fetch the complete model folder") from None
    if values.get("model_type") != model_type:
        raise CheckpointError(
            f"{folder}: model_type is {values.get('model_type')!r}, but --language_model asks for {model_type!r}; give "
            "a folder such as Qwen/Qwen3-VL-8B-Instruct, or the language model of this one"
        )
    with refused_values(folder / "config.json"):
        config = read_config(values)
    unused = TIED_HEAD if config.tie_word_embeddings else "$^"
    source = LanguageSource(TensorFiles(folder), from_published, lambda name: True, unused)
    return LanguageFiles(config, tokenizer, (source,))


def check_config(config: Any) -> Any:
    """A configuration of which the parts fit each other, and which says how many tokens an image may have.

    Raises:
        ValueError: naming what does not.
    """
    for name, value in IMAGE_TOKENS.items():
        if not hasattr(config, name):
            setattr(config, name, value)
    least, most = (getattr(config, name) for name in IMAGE_TOKENS)
    if type(least) is not int or type(most) is not int or not 1 <= least <= most:
        raise ValueError(
            f"least_image_tokens is {least!r} and most_image_tokens {most!r}; they must be whole numbers, 1 or more, "
            "the first no larger than the second"
        )
    text, vision = config.text_config, config.vision_config
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    sections = text.rope_parameters.get("mrope_section", SECTIONS)
    if 2 * sum(sections) != width:
        raise ValueError(f"mrope_section is {sections}, whose sum must be {width // 2}, half the width of a head")
    stacked = tuple(getattr(vision, "deepstack_visual_indexes", ()))
    if len(stacked) > text.num_hidden_layers or not set(stacked) <= set(range(vision.depth)):
        raise ValueError(
            f"deepstack_visual_indexes are {stacked}; they must be below the encoder's depth, {vision.depth}, and no "
            f"more than the {text.num_hidden_layers} layers of the decoder"
        )
    return config


def check_size(found: Any, expected: Any, *, folder: Path, size: str) -> None:
    """Refuse a published Qwen-VL of another size, also where no tensor's shape tells.

    Raises:
        CheckpointError: naming both sizes.
    """
    check_decoder(found, expected, folder=folder, size=size)
    for part, names in _SAME.items():
        own, other = getattr(found, part), getattr(expected, part)
        for name in names:
            value, allowed = _plain(getattr(own, name, None)), _plain(getattr(other, name, None))
            if value != allowed:
                raise CheckpointError(
                    f"--version {folder}: {name} of {part} is {value}, but size {size} has {allowed}; fetch it again, "
                    "or pass the preset of its size"
                )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in ("rope_theta", "mrope_section") if key in value}
    return list(value) if isinstance(value, tuple) else value
