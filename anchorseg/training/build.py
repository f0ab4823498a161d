"""Build: settings to a model and its tokenizer, from a saved model, from pretrained parts, or from scratch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from anchorseg.method import model_folder
from anchorseg.method.config import AnchorSegConfig
from anchorseg.method.model_folder import is_model_folder, read_config
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.tokens import TokenRegistry
from anchorseg.training.engine_config import checkpoints_gradients
from anchorseg.training.pretrained import NEW_ROW_STD, join_pretrained, open_parts
from anchorseg.training.settings import ModelSettings, TrainSettings
from anchorseg.training.trainable import set_trainable
from anchorseg.weights.folder import DTYPES, load_model, tiny_tokenizer
from anchorseg.weights.presets import new_registry, preset_config
from model.lora import add_lora, add_token_rows
from utils.distributed import is_main
from utils.errors import CheckpointError, SettingsError
from utils.seeding import seed_torch
from utils.settings import as_flag


def is_anchorseg_folder(version: str | None) -> bool:
    """Whether a `--version` is a model folder of this project."""
    return version is not None and is_model_folder(Path(version))


def check_weights(settings: ModelSettings) -> None:
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


def _refuse_flags(settings: ModelSettings, names: tuple[str, ...], reason: str) -> None:
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
        model, registry, reports = join_pretrained(settings, DTYPES[settings.precision], seed=settings.seed)
        if is_main():
            print(*reports, sep="\n")
    seed_torch(settings.seed, "weights", "adapters")
    choose_trainable(model, settings, registry)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if checkpoints_gradients(settings, settings.size, trained):
        if settings.cuda_graphs:
            raise SettingsError(
                "--gradient_checkpointing auto recomputes layers on this GPU, which --cuda_graphs cannot do; leave "
                "--cuda_graphs out, or pass --gradient_checkpointing off if a smaller --batch_size fits"
            )
        model.language.adapted.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    if settings.compile_sam:
        model.masks.image_encoder.compile()
    return model.train(), registry


def choose_trainable(model: AnchorSegModel, settings: ModelSettings, registry: TokenRegistry) -> None:
    """Add the run's adapters, and freeze what it does not train."""
    lora = settings.lora()
    if lora is not None:
        add_lora(model.language.adapted, lora)
    if settings.train_embeddings == "new":
        tables = model.language.vocabulary_tables
        add_token_rows(model.language, tables, list(registry.new_ids))  # type: ignore[arg-type]
    set_trainable(model, settings.train_scope)


def _with_training_options(model: AnchorSegModel, settings: ModelSettings) -> None:
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


def config_of(settings: ModelSettings, registry: TokenRegistry) -> AnchorSegConfig:
    """The configuration of a model that is built from settings alone."""
    return preset_config(
        settings.size,
        settings.method(),
        registry,
        head=settings.head,
        language_model=settings.language_model,
        mask_model=settings.mask_model,
    )


def _from_scratch(settings: ModelSettings) -> tuple[AnchorSegModel, TokenRegistry]:
    name = settings.language_model
    registry = new_registry(tiny_tokenizer(name), name, settings.method().token_counts())
    model = AnchorSegModel(config_of(settings, registry))
    added = list(registry.new_ids)
    embeddings = model.get_parameter(f"{model.language.saved_as}.{model.language.vocabulary_tables[0]}.weight")
    embeddings.data[added] = torch.randn(len(added), model.width) * NEW_ROW_STD
    return model.to(DTYPES[settings.precision]), registry
