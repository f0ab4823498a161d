"""Model folders: a saved model and its tokenizer, loaded and written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from anchorseg.method import model_folder
from anchorseg.method.model_folder import read_config
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.tokens import TokenRegistry
from anchorseg.weights.card import TrainingRecord, write_card
from anchorseg.weights.presets import token_ids
from anchorseg.weights.shipped import ASSETS, shipped
from model.backbones import language_backbone
from model.quantization import Quantization, quantization_config
from utils.errors import SettingsError
from utils.files import share_files
from utils.loading import local_folder, without_bars_in_logs

PaddingAttention = Literal["model", "zero", "plain"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def tiny_tokenizer_model() -> bytes:
    """The SentencePiece model of the tiny preset, which lies in the package."""
    return (ASSETS / "tiny_tokenizer.model").read_bytes()


def tiny_tokenizer(language_model: str) -> bytes:
    """The vocabulary of a language backbone's small sizes, which lies in the package.

    Raises:
        ValueError: for an unknown backbone.
    """
    return (ASSETS / language_backbone(language_model).tiny_tokenizer).read_bytes()


def load_model(
    folder: str | Path,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str = "auto",
    quantization: Quantization = "none",
    padding_attention: PaddingAttention = "model",
    **kwargs: object,
) -> tuple[AnchorSegModel, TokenRegistry]:
    """A saved model, in evaluation mode, and its tokenizer.

    Args:
        folder: a folder that merge_lora_weights.py, `save_model` or scripts.convert_checkpoint wrote; or "miniature",
            which comes with the project; or a name on the hub (OWNER/NAME), which is fetched into its cache after
            saying so. A local folder wins.
        revision: of a name on the hub: branch, tag or commit.
        dtype: of the weights: a torch dtype or its name, or one of `DTYPES`; "auto" keeps that of the files.
        quantization: of the language model's projections; a quantized model is for inference.
        padding_attention: of padding patches: what the model was trained with, or "zero" or "plain" in its place. (The
            published training and evaluation zero it, the published demos do not.)
        kwargs: as `AnchorSegModel.from_pretrained` takes them.

    Raises:
        CheckpointError: if the folder is not a complete model of this project, or the hub cannot be read.
        SettingsError: if the quantization needs what is not installed.
    """
    dtype = _dtype_of(dtype)
    quantized = quantization_config(quantization)
    folder = local_folder(shipped(folder), "the model folder", revision=revision, files=model_folder.FILES)
    config = read_config(folder)
    registry = TokenRegistry.load(folder, config.token_strings)
    model_folder.check_ids(folder, token_ids(registry), config)
    if quantized is not None:
        with torch.device("meta"):
            quantized.llm_int8_skip_modules = list(AnchorSegModel(config).kept_unquantized)
    model = AnchorSegModel.from_pretrained(folder, config=config, dtype=dtype, quantization_config=quantized, **kwargs)
    if padding_attention != "model":
        model.method = replace(model.method, padding_attention=padding_attention)
    return model.eval(), registry


def _dtype_of(dtype: torch.dtype | str) -> torch.dtype | str:
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    named = DTYPES.get(dtype, getattr(torch, dtype, None))
    if not isinstance(named, torch.dtype):
        raise SettingsError(f"dtype is {dtype!r}; allowed: auto, {', '.join(DTYPES)}, or a torch dtype")
    return named


def save_model(
    model: AnchorSegModel, registry: TokenRegistry, folder: str | Path, *, record: TrainingRecord | None = None
) -> None:
    """Write a model folder: config.json, generation_config.json, safetensors, tokenizer, and its card, README.md.

    Args:
        model: a merged model.
        registry: its tokenizer.
        folder: to write into.
        record: of the run that trained it, for the card.
    """
    folder = Path(folder)
    with without_bars_in_logs():
        model.save_pretrained(folder)
    model.config.generation_settings().save_pretrained(folder)
    registry.save(folder)
    write_card(folder, record=record)
    share_files(folder)
