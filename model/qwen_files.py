"""Qwen2.5-VL and Qwen3-VL as they are published: a folder with configuration, `tokenizer.json` and safetensors."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.language_files import LanguageFiles, LanguageSource
from utils.errors import CheckpointError
from utils.files import read_json
from utils.loading import refused_values
from utils.tensor_files import TensorFiles

MODULE = "qwen.network."
"""Beginning of its names in saved models of this project."""
TIED_HEAD = r"^lm_head\."
"""A second copy of a tied table, which some files carry."""
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
        values = read_json(folder / "config.json", fail=_damaged, kind=dict)
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


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path}: {reason}; fetch it again")


def check_size(found: Any, expected: Any, *, folder: Path, size: str) -> None:
    """Refuse a published Qwen-VL of another size, and take over how large images may become.

    Raises:
        CheckpointError: naming both sizes.
    """
    text, wanted = found.text_config, expected.text_config
    if (text.hidden_size, text.num_hidden_layers) != (wanted.hidden_size, wanted.num_hidden_layers):
        raise CheckpointError(
            f"--version {folder} has width {text.hidden_size} and {text.num_hidden_layers} layers, but size "
            f"{size} has {wanted.hidden_size} and {wanted.num_hidden_layers}; pass the preset of its size"
        )
    for name in ("least_image_tokens", "most_image_tokens"):
        setattr(found, name, getattr(found, name, getattr(expected, name)))
