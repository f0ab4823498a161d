"""Build: settings to a model and its tokenizer, from a saved model, from pretrained parts, or from scratch."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import torch

from anchorseg import model_folder
from anchorseg.engine_config import checkpoints_gradients
from anchorseg.model_folder import is_model_folder, read_config
from anchorseg.modeling import AnchorSegModel
from anchorseg.presets import preset_config, token_ids
from anchorseg.pretrained import NEW_ROW_STD, join_pretrained, open_parts
from anchorseg.settings import TrainSettings
from anchorseg.tokens import TokenRegistry, TokenStrings
from anchorseg.trainable import set_trainable
from model.lora import add_lora, add_token_rows
from model.quantised import Quantisation, quantisation_config
from utils.distributed import is_main
from utils.errors import CheckpointError
from utils.files import share_files
from utils.loading import local_folder, without_bars_in_logs
from utils.seeding import seed_torch
from utils.settings import as_flag

PaddingAttention = Literal["model", "zero", "plain"]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def tiny_tokenizer_model() -> bytes:
    """The SentencePiece model of the tiny preset, which lies in the package."""
    return (Path(__file__).parent / "assets" / "tiny_tokenizer.model").read_bytes()


def is_anchorseg_folder(version: str | None) -> bool:
    """Whether a `--version` is a model folder of this project."""
    return version is not None and is_model_folder(Path(version))


def check_weights(settings: TrainSettings) -> None:
    """Refuse weights that are missing or of another size than the preset's, before anything is started.

    Raises:
        CheckpointError: naming flag, value and remedy.
        FileNotFoundError: naming the file.
    """
    if is_anchorseg_folder(settings.version):
        folder = Path(settings.version)  # type: ignore[arg-type]
        model_folder.check_weights(folder, read_config(folder), AnchorSegModel)
        _refuse_flags(settings, ("vision_tower", "vision_pretrained"), f"{settings.version} is a whole AnchorSeg model")
    elif settings.size == "tiny":
        _refuse_flags(settings, ("version", "vision_tower", "vision_pretrained"), "size tiny starts from nothing")
    else:
        open_parts(settings)


def _refuse_flags(settings: TrainSettings, names: tuple[str, ...], reason: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None:
            raise CheckpointError(f"--{name} {value} is not used: {reason}; leave the flag out")


def build_for_training(settings: TrainSettings) -> tuple[AnchorSegModel, TokenRegistry]:
    """The model that a run trains, in training mode, the right parameters trainable, and its tokenizer.

    Raises:
        CheckpointError: if weights are missing or do not fit.
    """
    seed_torch(settings.seed, "weights")
    if is_anchorseg_folder(settings.version):
        model, registry = load_model(settings.version, dtype=DTYPES[settings.precision])  # type: ignore[arg-type]
        _with_training_options(model, settings)
    elif settings.size == "tiny":
        model, registry = _from_scratch(settings)
    else:
        model, registry, reports = join_pretrained(settings, DTYPES[settings.precision])
        if is_main():
            print(*reports, sep="\n")
    choose_trainable(model, settings, registry)
    if checkpoints_gradients(settings):
        model.language.adapted.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    if settings.compile_sam:
        model.masks.image_encoder.compile()
    return model.train(), registry


def choose_trainable(model: AnchorSegModel, settings: TrainSettings, registry: TokenRegistry) -> None:
    """Add the run's adapters, and freeze what it does not train."""
    lora = settings.lora()
    if lora is not None:
        add_lora(model.language.adapted, lora)
    if settings.train_embeddings == "new":
        tables = model.language.vocabulary_tables
        add_token_rows(model.language, tables, sorted(registry.added.values()))  # type: ignore[arg-type]
    set_trainable(model, settings.train_scope)


def load_model(
    folder: str | Path,
    *,
    dtype: torch.dtype | str = "auto",
    quantisation: Quantisation = "none",
    padding_attention: PaddingAttention = "model",
    **kwargs: object,
) -> tuple[AnchorSegModel, TokenRegistry]:
    """A saved model, in evaluation mode, and its tokenizer.

    Args:
        folder: a folder that merge_lora_weights.py, `save_model` or scripts.convert_checkpoint wrote, or a hub name.
        dtype: of the weights; "auto" keeps that of the files.
        quantisation: of the language model's projections; a quantised model is for inference.
        padding_attention: of padding patches: what the model was trained with, or "zero" or "plain" in its place. (The
            published training and evaluation zero it, the published demos do not.)
        kwargs: as `AnchorSegModel.from_pretrained` takes them.

    Raises:
        CheckpointError: if the folder is not a complete model of this project.
        SettingsError: if the quantisation needs what is not installed.
    """
    quantised = quantisation_config(quantisation)
    folder = local_folder(folder, "the model folder")
    config = read_config(folder)
    registry = TokenRegistry.load(folder, config.token_strings)
    model_folder.check_ids(folder, token_ids(registry), config)
    model = AnchorSegModel.from_pretrained(folder, config=config, dtype=dtype, quantization_config=quantised, **kwargs)
    if padding_attention != "model":
        model.method = replace(model.method, padding_attention=padding_attention)
    return model.eval(), registry


def save_model(model: AnchorSegModel, registry: TokenRegistry, folder: str | Path) -> None:
    """Write a model folder: config.json, generation_config.json, safetensors, tokenizer."""
    with without_bars_in_logs():
        model.save_pretrained(folder)
    model.config.generation_settings().save_pretrained(folder)
    registry.save(folder)
    share_files(Path(folder))


def _with_training_options(model: AnchorSegModel, settings: TrainSettings) -> None:
    """Give a saved model the run's training options; what its weights depend on must agree.

    Raises:
        CheckpointError: naming the first option that does not.
    """
    saved, wanted = model.method, settings.method()
    for name in ("head", "language_model", "mask_model"):
        if getattr(model.config, name) != getattr(settings, name):
            raise CheckpointError(
                f"{settings.version} has the {name} {getattr(model.config, name)}, but the settings say "
                f"{getattr(settings, name)}; pass --{name} {getattr(model.config, name)}"
            )
    for name in wanted.INFERENCE:
        if getattr(saved, name) != getattr(wanted, name):
            raise CheckpointError(
                f"{settings.version} was trained with {name} {getattr(saved, name)}, but the settings say "
                f"{getattr(wanted, name)}; pass {as_flag(name, getattr(saved, name))}"
            )
    model.method = wanted
    model.config.method = asdict(wanted)


def _from_scratch(settings: TrainSettings) -> tuple[AnchorSegModel, TokenRegistry]:
    registry = TokenRegistry.create(tiny_tokenizer_model(), TokenStrings.for_bank(settings.num_latents))
    config = preset_config(
        settings.size,
        settings.method(),
        registry,
        head=settings.head,
        language_model=settings.language_model,
        mask_model=settings.mask_model,
    )
    model = AnchorSegModel(config)
    added = list(registry.added.values())
    embeddings = model.get_parameter(f"{model.language.saved_as}.{model.language.vocabulary_tables[0]}.weight")
    embeddings.data[added] = torch.randn(len(added), model.width) * NEW_ROW_STD
    return model.to(DTYPES[settings.precision]), registry
