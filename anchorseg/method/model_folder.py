"""A model folder on disk: its configuration and weight files are checked before anything is built from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from anchorseg.method.config import OLD_NAMES, AnchorSegConfig
from anchorseg.method.heads import head_entry
from anchorseg.method.pieces import JSON_FILE, MODEL_FILE
from model.backbones import language_backbone
from utils.errors import CheckpointError
from utils.files import read_json
from utils.loading import match, refused_values
from utils.shown import shown
from utils.tensor_files import TensorFiles

FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    MODEL_FILE,
    "added_tokens.json",
    JSON_FILE,
    "tokenizer_config.json",
    "README.md",
)
"""Patterns of the files that make a model folder; nothing else of a repository on the hub is fetched."""
SECTIONS = ("language_config", "mask_config", "method", "tokens", "token_ids")
_ALWAYS_SAID = ("num_latents", "contextual_queries", "spatial_prior", "inject_prior", "clip_statistics")
"""Options of the method without which a folder is not read, where its head has them."""
_LARGEST_SIZE = 1 << 20
"""No width, count or id of a configuration is larger."""
_NO_SIZES = ("rope_theta",)
"""Numbers that may be larger: Qwen3-VL's is published as the whole number 5000000."""
_DEPTHS, _MOST_LAYERS = ("num_hidden_layers", "encoder_depth", "decoder_depth"), 1000
_LOADERS = ("attn_implementation", "_attn_implementation", "experts_implementation", "auto_map", "custom_pipelines")
"""Keys by which a configuration makes transformers fetch kernels or code."""
_DTYPES = ("float32", "bfloat16", "float16")
LARGE = 2_000_000_000
"""Bytes of weights from which on a model does not answer on a CPU in reasonable time."""


def read_values(folder: Path) -> dict[str, Any]:
    """What the `config.json` of a folder holds, whatever model it is of.

    Raises:
        CheckpointError: if it is missing, damaged or no JSON object.
    """
    path = folder / "config.json"
    try:
        values: dict[str, Any] = read_json(path, fail=_unusable, kind=dict)
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} holds no config.json; give a model folder written by merge_lora_weights.py"
        ) from None
    return values


def is_model_folder(folder: Path) -> bool:
    """Whether a folder is a model of this project.

    Raises:
        CheckpointError: if its `config.json` is damaged.
    """
    return (folder / "config.json").exists() and read_values(folder).get("model_type") == AnchorSegConfig.model_type


def read_config(folder: Path) -> AnchorSegConfig:
    """The configuration of a model folder.

    Raises:
        CheckpointError: naming the first key that is missing, unknown, or has a value that is not allowed; also for a
            folder of another model.
    """
    path, values = folder / "config.json", read_values(folder)
    values = {OLD_NAMES.get(name, name): value for name, value in values.items()}
    _refuse_other_models(folder, values)
    for key, value in _entries(values, "config"):
        name = key.rsplit(".", 1)[-1]
        if value is not None and any(part in _LOADERS for part in key.split(".")):
            raise _unusable(path, f"{key} is {shown(value)}, but a model folder must not choose what code is loaded")
        if isinstance(value, int) and abs(value) > _LARGEST_SIZE and name not in _NO_SIZES:
            raise _unusable(path, f"{key} is {shown(value)}, larger than any size of a model")
        if name in _DEPTHS and isinstance(value, int) and not 1 <= value <= _MOST_LAYERS:
            raise _unusable(path, f"{key} is {value}; allowed: 1 to {_MOST_LAYERS}")
    if values.get("dtype") not in (None, *_DTYPES):
        raise _unusable(path, f"dtype is {shown(values['dtype'])}; allowed: {', '.join(_DTYPES)}")
    for section in SECTIONS:
        if not isinstance(values.get(section), dict) or not values[section]:
            raise _unusable(path, f"{section} is {shown(values.get(section))}, but must be an object with its settings")
    with refused_values(path):
        known = {field.name for field in fields(head_entry(values.get("head", AnchorSegConfig.head)).Options)}
    absent = [name for name in _ALWAYS_SAID if name in known and name not in values["method"]]
    if absent:
        raise _unusable(path, f"method does not say {', '.join(absent)}, which the weights depend on")
    with refused_values(path):
        return AnchorSegConfig.from_dict(values)


def _refuse_other_models(folder: Path, values: Mapping[str, Any]) -> None:
    kind = values.get("model_type")
    if kind == AnchorSegConfig.model_type:
        return
    if "train_mask_decoder" in values or "out_dim" in values:
        raise CheckpointError(
            f"{folder} is a checkpoint in the published layout; convert it first: python -m scripts.convert_checkpoint "
            f"{folder} NEW_FOLDER --vision_tower openai/clip-vit-large-patch14-336"
        )
    raise CheckpointError(
        f"{folder} is no model folder of this project: its model_type is {shown(kind)}; give a folder written by "
        "merge_lora_weights.py or scripts.convert_checkpoint"
    )


def _entries(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every single value with the path of its key."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _entries(inner, f"{name}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner, name)
    else:
        yield name, value


def check_weights(folder: Path, config: AnchorSegConfig, build: Callable[[AnchorSegConfig], nn.Module]) -> None:
    """Compare the tensors of a model folder with what its configuration asks for, by name, shape and type.

    Args:
        folder: the model folder.
        config: of `read_config`.
        build: makes the model, here without memory for its weights.

    Raises:
        CheckpointError: naming the tensors that are missing, unknown, of another shape or not of floating point.
    """
    if (folder / "adapter_config.json").exists():
        raise CheckpointError(
            f"{folder} holds adapter_config.json, a LoRA adapter; give the folder that merge_lora_weights.py wrote"
        )
    files = TensorFiles(folder)
    with refused_values(folder / "config.json"), torch.device("meta"):
        wanted = {name: value.shape for name, value in build(config).state_dict().items()}
    report = match(wanted, files, language_backbone(config.language_model).module_name)
    whole = [name for name in report.loaded.values() if not files.is_floating_point(name)]
    refuse_tensors(folder, {"of whole numbers": whole})


def refuse_not_finite(folder: str | Path, model: nn.Module) -> None:
    """Refuse weights that hold NaN or an infinity.

    Raises:
        CheckpointError: naming the tensors.
    """
    broken = [
        name
        for name, value in model.state_dict().items()
        if value.is_floating_point() and not value.is_meta and not math.isfinite(_probe(value))
    ]
    refuse_tensors(folder, {"not finite": broken})


def _probe(value: torch.Tensor) -> float:
    """A number that is finite if and only if all values are; the norm would overflow, the extremes do not."""
    if not value.numel():
        return 0.0
    low, high = value.aminmax()
    return float(low) - float(high) if low.isfinite() and high.isfinite() else math.nan


def refuse_tensors(folder: str | Path, problems: Mapping[str, list[str]]) -> None:
    """Refuse a folder if there is any tensor of one of the kinds of problems.

    Raises:
        CheckpointError: naming up to five of the first kind.
    """
    for kind, names in problems.items():
        if names:
            some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise CheckpointError(
                f"{folder}: {len(names)} tensor(s) {kind}: {some}. The folder is incomplete, damaged or of another "
                "configuration; write it again with merge_lora_weights.py"
            )


def check_ids(folder: Path, found: Mapping[str, Any], config: AnchorSegConfig) -> None:
    """Refuse a tokenizer that is not the one the configuration was written with.

    Raises:
        CheckpointError: naming the ids of both.
    """
    if dict(found) != config.token_ids:
        raise CheckpointError(
            f"{folder}: the tokenizer gives the ids {dict(found)}, but config.json says {config.token_ids}; use the "
            "tokenizer that was saved with the model"
        )


def tokenizer_files(folder: Path) -> tuple[Path, Path]:
    """The files that a folder's tokenizer is read from: its vocabulary, and the ids of the added tokens."""
    vocabulary = MODEL_FILE if (folder / MODEL_FILE).exists() else JSON_FILE
    return folder / vocabulary, folder / "added_tokens.json"


def is_large(folder: Path) -> bool:
    """Whether a model folder's weights are too many for a CPU."""
    return sum(path.stat().st_size for path in TensorFiles(folder).files) > LARGE


def _unusable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path}: {reason}; write the folder again, or copy it again")
