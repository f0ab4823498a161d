"""Pretrained parts: LLaVA-1.5, CLIP and SAM as they are published, joined to a model that is ready to train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from transformers import LlavaConfig
from transformers.initialization import no_init_weights

from anchorseg.method.config import AnchorSegConfig
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.tokens import TokenRegistry, TokenStrings
from anchorseg.training.settings import TrainSettings
from anchorseg.weights.presets import token_ids
from model.llava import LlavaBackbone
from model.llava_files import LlavaFiles, open_llava
from model.sam import SamBackbone, SamSizes
from model.sam_files import PUBLISHED_SIZES, infer_sizes, size_name
from utils.errors import CheckpointError
from utils.loading import LoadReport, assign, local_folder, match
from utils.tensor_files import TensorFiles

NEW_ROW_STD = 0.02
VOCABULARY_TABLES = ("model.language_model.embed_tokens.weight", "lm_head.weight")
MASK_TOKEN_TABLE = "mask_token_positions"


def join_pretrained(
    settings: TrainSettings, dtype: torch.dtype
) -> tuple[AnchorSegModel, TokenRegistry, list[LoadReport]]:
    """The model of `--version`, `--vision_tower` and `--vision_pretrained`; what is new is drawn.

    Raises:
        CheckpointError: if a file or tensor is missing, unknown, or of another shape or size than the preset's.
    """
    llava, sam = open_parts(settings)
    registry = TokenRegistry.create(llava.tokenizer, TokenStrings.for_bank(settings.num_latents))
    llava.config.text_config.vocab_size = len(registry)
    llava.config.text_config.pad_token_id = None
    config = AnchorSegConfig(
        language_config=llava.config,
        mask_config=_sam_sizes(settings),
        head=settings.head,
        method=settings.method(),
        tokens=registry.strings,
        token_ids=token_ids(registry),
    )
    with uninitialized(dtype):
        model = AnchorSegModel(config)
    initialize_new(model, dtype)
    reports = [*load_llava(model, llava, dtype, registry), load_sam(cast(SamBackbone, model.masks), sam, dtype)]
    return model, registry, reports


def open_parts(settings: TrainSettings) -> tuple[LlavaFiles, TensorFiles]:
    """Open the files that the flags name and check that they are of the preset's size; no weight is read yet.

    Raises:
        CheckpointError: naming flag, value and remedy.
    """
    version = _required(settings.version, "--version", "a LLaVA-1.5 folder such as llava-hf/llava-1.5-7b-hf")
    sam_file = _required(settings.vision_pretrained, "--vision_pretrained", "the file sam_vit_h_4b8939.pth")
    if not Path(sam_file).is_file():
        raise FileNotFoundError(
            f"--vision_pretrained {sam_file} does not exist; fetch sam_vit_h_4b8939.pth (docs/reproduce.md, Weights)"
        )
    clip_folder = None if settings.vision_tower is None else local_folder(settings.vision_tower, "--vision_tower")
    llava = open_llava(local_folder(version, "--version"), clip_folder)
    _check_llava_size(llava.config, LlavaBackbone.preset(settings.size, 0), settings)
    sam = TensorFiles(sam_file)
    _check_sam_size(sam, _sam_sizes(settings))
    return llava, sam


def _sam_sizes(settings: TrainSettings) -> SamSizes:
    return PUBLISHED_SIZES[settings.sam_model] if settings.sam_model != "preset" else SamBackbone.preset(settings.size)


def _required(value: str | None, flag: str, what: str) -> str:
    if not value:
        raise CheckpointError(f"{flag} is needed for this preset: give {what} (README, section Train 7B and 13B)")
    return value


def _check_llava_size(found: LlavaConfig, expected: LlavaConfig, settings: TrainSettings) -> None:
    text, wanted = found.text_config, expected.text_config
    if (text.hidden_size, text.num_hidden_layers) != (wanted.hidden_size, wanted.num_hidden_layers):
        raise CheckpointError(
            f"--version {settings.version} has width {text.hidden_size} and {text.num_hidden_layers} layers, but size "
            f"{settings.size} has {wanted.hidden_size} and {wanted.num_hidden_layers}; pass the preset of its size"
        )
    vision, view = found.vision_config, expected.vision_config
    if (vision.image_size, vision.patch_size) != (view.image_size, view.patch_size):
        raise CheckpointError(
            f"{settings.vision_tower or settings.version} holds a CLIP for {vision.image_size} pixels in patches of "
            f"{vision.patch_size}, but LLaVA-1.5 has {view.image_size} and {view.patch_size}; give "
            "openai/clip-vit-large-patch14-336"
        )


def _check_sam_size(sam: TensorFiles, expected: SamSizes) -> None:
    found = infer_sizes({name: sam.shape(name) for name in sam})
    if replace(found, decoder_heads=expected.decoder_heads) != expected:
        raise CheckpointError(
            f"--vision_pretrained {sam.path} is {size_name(found)}, but {size_name(expected)} is asked for; give the "
            "file of that size, or --sam_model vit_h, vit_l or vit_b"
        )


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


def initialize_new(model: AnchorSegModel, dtype: torch.dtype) -> None:
    """Draw what no pretrained part holds: the query bank, SAM's mask-token table, and the vocabulary tables.

    The tables are N(0, 0.02) throughout; loading then overwrites the rows of LLaMA's own pieces.
    """
    model.head.draw_new(dtype)
    model.masks.draw_new(dtype)
    language = model.get_submodule(model.language.saved_as)
    for name in model.language.vocabulary_tables:
        table = language.get_parameter(f"{name}.weight")
        table.data = (torch.randn(table.shape, dtype=torch.float32) * NEW_ROW_STD).to(dtype)


def load_llava(
    model: AnchorSegModel, llava: LlavaFiles, dtype: torch.dtype, registry: TokenRegistry
) -> list[LoadReport]:
    """Fill LLaVA's part of the model; the vocabulary tables keep their drawn rows after LLaMA's pieces.

    Raises:
        CheckpointError: if a tensor is missing, unknown or of another shape.
    """
    network = model.language.network  # type: ignore[attr-defined]
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    base = len(registry) - len(registry.added)
    adapt = {name: _keep_new_rows(network.get_parameter(name), base, name) for name in VOCABULARY_TABLES}
    pairs = [
        (
            source,
            match(
                {name: shape for name, shape in shapes.items() if source.holds(name)},
                source.files,
                source.rename,
                unused=source.unused,
                longer=VOCABULARY_TABLES,
            ),
        )
        for source in llava.sources
    ]
    for source, report in pairs:
        assign(network, source.files, report, dtype, adapt)
    return [report for _, report in pairs]


def _keep_new_rows(table: Tensor, base: int, name: str) -> Callable[[Tensor], Tensor]:
    def adapt(published: Tensor) -> Tensor:
        if len(published) < base:
            raise CheckpointError(
                f"{name} has {len(published)} rows, but the tokenizer has {base} pieces; fetch both again"
            )
        return torch.cat([published[:base].to(table.dtype), table.data[base:]])

    return adapt


def load_sam(sam: SamBackbone, files: TensorFiles, dtype: torch.dtype) -> LoadReport:
    """Fill SAM from its published file; the mask-token table is new.

    Raises:
        CheckpointError: if a tensor is missing, unknown or of another shape.
    """
    shapes = {name: value.shape for name, value in sam.state_dict().items()}
    report = match(shapes, files, lambda name: name, new=(MASK_TOKEN_TABLE,))
    assign(sam, files, report, dtype)
    return report
