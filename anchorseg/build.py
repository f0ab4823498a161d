"""Build: settings to a model and its tokenizer, from a saved model, from pretrained parts, or from scratch."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

from anchorseg.config import AnchorSegConfig
from anchorseg.modeling import AnchorSegModel
from anchorseg.presets import preset_config, token_ids
from anchorseg.query_bank import QueryBankProjector
from anchorseg.settings import TrainSettings
from anchorseg.tokens import TokenRegistry, TokenStrings
from anchorseg.trainable import set_trainable
from model.llava import LLAVA_ATTENTION
from model.lora import add_lora
from model.sam import SamBackbone
from utils.errors import CheckpointError
from utils.seeding import seed_torch

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
NEW_ROW_STD = 0.02


def tiny_tokenizer_model() -> bytes:
    """The SentencePiece model of the tiny preset, which lies in the package."""
    return (Path(__file__).parent / "assets" / "tiny_tokenizer.model").read_bytes()


def is_anchorseg_folder(version: str | None) -> bool:
    """Whether a `--version` is a model folder of this project."""
    path = Path(version or "") / "config.json"
    return bool(version) and path.is_file() and json.loads(path.read_text()).get("model_type") == "anchorseg"


def check_weights(settings: TrainSettings) -> None:
    """Refuse a preset of pretrained parts without its files, before anything is started.

    Raises:
        CheckpointError: naming the flag.
        FileNotFoundError: naming the file.
    """
    if settings.vision_tower is not None:
        raise CheckpointError(
            f"--vision_tower {settings.vision_tower} is not used: LLaVA-1.5 in transformers' layout, the only one that "
            "--version reads so far, holds its CLIP itself; leave the flag out"
        )
    if settings.preset == "tiny" or is_anchorseg_folder(settings.version):
        return
    _required(settings.version, "--version", "a LLaVA-1.5 folder such as llava-hf/llava-1.5-7b-hf")
    sam_file = _required(settings.vision_pretrained, "--vision_pretrained", "the file sam_vit_h_4b8939.pth")
    if not Path(sam_file).is_file():
        raise FileNotFoundError(
            f"--vision_pretrained {sam_file} does not exist; fetch sam_vit_h_4b8939.pth (README, Weights)"
        )


def build_for_training(settings: TrainSettings) -> tuple[AnchorSegModel, TokenRegistry]:
    """The model that a run trains, with LoRA and the right parameters trainable, and its tokenizer.

    Raises:
        CheckpointError: if weights are missing or do not fit.
    """
    check_weights(settings)
    seed_torch(settings.seed, "weights")
    if is_anchorseg_folder(settings.version):
        model, registry = load_model(settings.version, dtype=DTYPES[settings.precision])  # type: ignore[arg-type]
        _check_same_method(model, settings)
    elif settings.preset == "tiny":
        model, registry = _from_scratch(settings)
    else:
        model, registry = _from_pretrained_parts(settings)
    lora = settings.lora()
    if lora is not None:
        add_lora(model.llava.language_model, lora)
    set_trainable(model, settings.train_scope)
    if settings.gradient_checkpointing:
        model.llava.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    return model, registry


def load_model(
    folder: str | Path, *, dtype: torch.dtype | str = "auto", **kwargs: object
) -> tuple[AnchorSegModel, TokenRegistry]:
    """A saved model, in evaluation mode, and its tokenizer.

    Args:
        folder: a folder that merge_lora_weights.py or `save_model` wrote.
        dtype: of the weights; "auto" keeps that of the files.
        kwargs: as `AnchorSegModel.from_pretrained` takes them.

    Raises:
        CheckpointError: if the folder is not a complete model of this project.
    """
    if not (Path(folder) / "config.json").is_file():
        raise CheckpointError(f"{folder} holds no config.json; give a model folder written by merge_lora_weights.py")
    model = AnchorSegModel.from_pretrained(folder, dtype=dtype, **kwargs)
    registry = TokenRegistry.load(folder, model.config.token_strings)
    if token_ids(registry) != model.config.token_ids:
        raise CheckpointError(
            f"{folder}: the tokenizer gives the ids {token_ids(registry)}, but config.json says "
            f"{model.config.token_ids}; use the tokenizer that was saved with the model"
        )
    return model.eval(), registry


def save_model(model: AnchorSegModel, registry: TokenRegistry, folder: str | Path) -> None:
    """Write a model folder: config.json, generation_config.json, safetensors, tokenizer."""
    model.save_pretrained(folder)
    model.generation_settings().save_pretrained(folder)
    registry.save(folder)


def _check_same_method(model: AnchorSegModel, settings: TrainSettings) -> None:
    saved, wanted = model.method, settings.method()
    if saved.num_latents != wanted.num_latents or saved.contextual_queries != wanted.contextual_queries:
        raise CheckpointError(
            f"{settings.version} was trained with num_latents {saved.num_latents} and contextual_queries "
            f"{saved.contextual_queries}, but the settings say {wanted.num_latents} and {wanted.contextual_queries}; "
            f"pass --num_latents {saved.num_latents}"
        )


def _from_scratch(settings: TrainSettings) -> tuple[AnchorSegModel, TokenRegistry]:
    registry = TokenRegistry.create(tiny_tokenizer_model(), TokenStrings.for_bank(settings.num_latents))
    model = AnchorSegModel(preset_config(settings.preset, settings.method(), registry))
    added = list(registry.added.values())
    model.llava.language_model.embed_tokens.weight.data[added] = torch.randn(len(added), model.width) * NEW_ROW_STD
    return model.to(DTYPES[settings.precision]), registry


def _required(value: str | None, flag: str, what: str) -> str:
    if not value:
        raise CheckpointError(f"{flag} is needed for this preset: give {what} (README, section Weights)")
    return value


def _from_pretrained_parts(settings: TrainSettings) -> tuple[AnchorSegModel, TokenRegistry]:
    """LLaVA in transformers' layout and SAM's own file, joined; what is new starts from its own distribution."""
    version, sam_file = str(settings.version), str(settings.vision_pretrained)
    dtype = DTYPES[settings.precision]
    if not Path(version, "tokenizer.model").is_file():
        raise CheckpointError(f"{version} holds no tokenizer.model; fetch the complete LLaVA-1.5 folder")
    strings = TokenStrings.for_bank(settings.num_latents)
    registry = TokenRegistry.create(Path(version, "tokenizer.model").read_bytes(), strings)
    llava = load_llava(version, registry, dtype)
    config = preset_config(settings.preset, settings.method(), registry)
    config = AnchorSegConfig(**{**config.to_dict(), "llava_config": llava.config.to_dict()})
    with torch.device("meta"):
        model = AnchorSegModel(config)
    model.llava.network = llava
    model.sam = load_sam(SamBackbone(config.sam_sizes), sam_file).to(dtype)
    model.query_bank = QueryBankProjector(
        llava.config.text_config.hidden_size,
        config.sam_sizes.prompt_width,
        model.method.num_latents,
        contextual=model.method.contextual_queries,
    ).to(dtype)
    return model, registry


def load_llava(version: str, registry: TokenRegistry, dtype: torch.dtype) -> LlavaForConditionalGeneration:
    """LLaVA-1.5 with its embedding table cut to LLaMA's pieces and extended by the added tokens, N(0, 0.02).

    Raises:
        CheckpointError: if a tensor is missing or has another shape.
    """
    config = LlavaConfig.from_pretrained(version)
    llava, info = LlavaForConditionalGeneration.from_pretrained(
        version,
        config=config,
        dtype=dtype,
        attn_implementation=dict(LLAVA_ATTENTION),
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported below, with the others
    )
    bad = sorted(info["missing_keys"]) + sorted(str(item) for item in info["mismatched_keys"])
    if bad:
        raise CheckpointError(
            f"{version}: {len(bad)} tensor(s) missing or of another shape: {', '.join(bad[:5])}; fetch it again"
        )
    _resize_vocabulary(llava, base=len(registry) - len(registry.added), rows=len(registry))
    return llava


def _resize_vocabulary(llava: LlavaForConditionalGeneration, *, base: int, rows: int) -> None:
    for module in (llava.model.language_model.embed_tokens, llava.lm_head):
        old = module.weight.data
        new = torch.empty(rows, old.shape[1], dtype=old.dtype).normal_(0.0, NEW_ROW_STD)
        new[:base] = old[:base]
        module.weight = nn.Parameter(new)
    llava.model.language_model.embed_tokens.num_embeddings = rows
    llava.lm_head.out_features = rows
    llava.config.text_config.vocab_size = rows
    llava.model.language_model.config.vocab_size = rows


def load_sam(sam: SamBackbone, path: str | Path) -> SamBackbone:
    """Load SAM's published `.pth` strictly; the mask-token table is new.

    Raises:
        CheckpointError: if a tensor is missing, unknown or of another shape.
    """
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    own = {name: tensor for name, tensor in sam.state_dict().items() if name != "mask_token_positions"}
    wrong = [name for name in own if name not in tensors or tensors[name].shape != own[name].shape]
    unknown = [name for name in tensors if name not in own]
    if wrong or unknown:
        names = ", ".join((wrong + unknown)[:5])
        raise CheckpointError(f"{path} is not this size of SAM: {len(wrong + unknown)} tensor(s) differ: {names}")
    sam.load_state_dict(tensors, strict=False)
    return sam
