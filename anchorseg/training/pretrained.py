"""Pretrained parts: a language and a mask backbone as they are published, joined to a model that is ready to train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.initialization import no_init_weights

from anchorseg.method.config import AnchorSegConfig
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.tokens import TokenRegistry
from anchorseg.training.settings import ModelSettings
from anchorseg.weights.presets import new_registry, token_ids
from anchorseg.weights.published import MASKS, Weights, of_language
from anchorseg.weights.shipped import shipped
from model.backbones import language_backbone, mask_backbone
from utils.errors import CheckpointError
from utils.loading import LoadReport, local_folder
from utils.seeding import seed_torch

NEW_ROW_STD = 0.02


def join_pretrained(
    settings: ModelSettings, dtype: torch.dtype, *, seed: int
) -> tuple[AnchorSegModel, TokenRegistry, list[LoadReport]]:
    """The model of `--version`, `--vision_tower` and `--vision_pretrained`; what is new is drawn.

    Raises:
        CheckpointError: if a file or tensor is missing, unknown, or of another shape or size than the preset's.
    """
    language, masks = open_parts(settings)
    registry = new_registry(language.tokenizer, settings.language_model, settings.method().token_counts())
    language.config.text_config.vocab_size = len(registry)
    language.config.text_config.pad_token_id = None
    config = AnchorSegConfig(
        language_model=settings.language_model,
        language_config=language.config,
        mask_model=settings.mask_model,
        mask_config=_mask_sizes(settings),
        head=settings.head,
        method=settings.method(),
        tokens=registry.strings,
        token_ids=token_ids(registry),
    )
    with uninitialized(dtype):
        model = AnchorSegModel(config)
    initialize_new(model, dtype, seed)
    reports = [
        *model.language.load_published(language, dtype, registry.vocabulary_size),
        model.masks.load_published(masks, dtype),
    ]
    return model, registry, reports


def open_parts(settings: ModelSettings) -> tuple[Any, Any]:
    """Open the files that the flags name and check that they are of the preset's size; no weight is read yet.

    Returns:
        What both backbones' `open_published` give.

    Raises:
        CheckpointError: naming flag, value and remedy.
    """
    wanted = _called(of_language(settings.language_model, settings.size))
    version = shipped(_required(settings.version, "--version", wanted))
    wanted = _called(MASKS.get(settings.mask_model))
    mask_file = shipped(_required(settings.vision_pretrained, "--vision_pretrained", wanted))
    if not Path(mask_file).exists():
        raise FileNotFoundError(
            f"--vision_pretrained {mask_file} does not exist; fetch sam_vit_h_4b8939.pth (docs/reproduce.md, Weights), "
            "for SAM 2.1 a folder such as facebook/sam2.1-hiera-large, for SAM 3 facebook/sam3, or for PixelLM "
            "openai/clip-vit-large-patch14-336"
        )
    tower = None if settings.vision_tower is None else local_folder(settings.vision_tower, "--vision_tower")
    language = language_backbone(settings.language_model).open_published(
        local_folder(version, "--version"), tower, settings.size
    )
    masks = mask_backbone(settings.mask_model).open_published(Path(mask_file), _mask_sizes(settings))
    return language, masks


def _called(weights: Weights | None) -> str:
    if weights is None:
        return "its published weights"
    return f"a folder such as {weights.repository}" if weights.repository else f"the file {weights.name}"


def _mask_sizes(settings: ModelSettings) -> Any:
    backbone = mask_backbone(settings.mask_model)
    if settings.sam_model == "preset":
        return backbone.preset(settings.size)
    return backbone.published_sizes(settings.sam_model)


def _required(value: str | None, flag: str, what: str) -> str:
    if not value:
        raise CheckpointError(f"{flag} is needed for this preset: give {what} (README, section Train 7B and 13B)")
    return value


@contextmanager
def uninitialized(dtype: torch.dtype) -> Iterator[None]:
    """Build modules as `dtype` without drawing weights that are read from files anyway."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights():
            yield
    finally:
        torch.set_default_dtype(previous)


def initialize_new(model: AnchorSegModel, dtype: torch.dtype, seed: int) -> None:
    """Draw what no pretrained part holds: the query bank, SAM's mask-token table, and the vocabulary tables.

    The tables are N(0, 0.02) throughout; loading then overwrites the rows of the vocabulary's own pieces. Each part has
    a stream of its own, so that runs of one seed whose heads differ begin alike in all else.
    """
    seed_torch(seed, "weights", "head")
    model.head.draw_new(dtype)
    seed_torch(seed, "weights", "masks")
    model.masks.draw_new(dtype)
    seed_torch(seed, "weights", "language")
    model.language.draw_new(dtype)
    seed_torch(seed, "weights", "vocabulary")
    language = model.get_submodule(model.language.saved_as)
    for name in model.language.vocabulary_tables:
        table = language.get_parameter(f"{name}.weight")
        table.data = (torch.randn(table.shape, dtype=torch.float32) * NEW_ROW_STD).to(dtype)
