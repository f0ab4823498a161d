"""The published implementation's checkpoints: to this project's model folder, and back.

Their configuration does not say K, the token ids, or the layer that the states come from; tokenizer and tensors do.
What a model folder has no use for, and every file beside the weights, is kept in its subfolder `official/`, so that the
way back gives the same files.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file
from torch import Tensor

from anchorseg.method.config import AnchorSegConfig
from anchorseg.method.model_folder import read_config as read_model_config
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.options import Method
from anchorseg.method.tokens import TokenRegistry, TokenStrings, read_added
from anchorseg.weights.card import write_card
from anchorseg.weights.official_names import (
    GATE,
    NETWORK,
    OWN_POSITIONS,
    POSITIONS,
    SAM_PREFIX,
    TOWER,
    UNUSED,
    WITHOUT_LATENTS,
    official_name,
    own_name,
)
from anchorseg.weights.presets import token_ids
from model.llava import LlavaBackbone
from model.llava_files import (
    CLIP_TEXT_SIDE,
    ROTARY_BUFFERS,
    clip_config,
    from_clip,
    original_config,
    read_config,
)
from model.sam_files import infer_sizes
from utils.errors import CheckpointError
from utils.files import new_folder, refuse_existing, share_files, write_json
from utils.loading import LoadReport, local_folder, match
from utils.tensor_files import TensorFiles, index_file

SIDE_FOLDER, UNUSED_FILE, LAYOUT_FILE = "official", "unused.safetensors", "layout.json"
PUBLISHED_ROWS = 8
"""Rows of the published decoder's positions, whatever K is; the first K + 1 are used."""

EMBEDDINGS = "model.embed_tokens.weight"

CLIP_SIDE = 336
"""The published code pads every image to this side, whatever its configuration says."""


def convert(source: str | Path, target: str | Path, vision_tower: str | Path) -> tuple[LoadReport, LoadReport]:
    """Write a released checkpoint as a model folder of this project, each tensor as it is.

    Args:
        source: folder in the published layout, or hub name.
        target: new folder.
        vision_tower: CLIP folder or hub name; released checkpoints do not hold their CLIP.

    Returns:
        What was taken from the checkpoint, and from CLIP.

    Raises:
        OutputExistsError: if `target` is there already.
        CheckpointError: if a file or tensor is missing, unknown or of another shape, or the checkpoint depends on a
            part of the published code that its published runs did not use. Nothing is written then.
    """
    target, released = Path(target), str(source)
    refuse_existing(target)
    source, clip_folder = local_folder(source, "SRC"), local_folder(vision_tower, "--vision_tower")
    files, clip_files = TensorFiles(source), TensorFiles(clip_folder)
    config, registry = _configuration(source, files, clip_folder)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in AnchorSegModel(config).state_dict().items()}
    tower = {name: shapes.pop(name) for name in list(shapes) if name.startswith(TOWER)}
    count = config.method_settings.num_latents
    unused = UNUSED if count else f"{UNUSED}|{WITHOUT_LATENTS}"
    report = match(shapes, files, own_name, unused=unused, longer=(OWN_POSITIONS,))
    clip_report = match(tower, clip_files, _own_clip_name, unused=f"{ROTARY_BUFFERS}|{CLIP_TEXT_SIDE}")
    config.dtype = files[report.loaded[f"{NETWORK}lm_head.weight"]].dtype
    tensors = {own: files[name] for own, name in report.loaded.items()}
    tensors |= {own: clip_files[name] for own, name in clip_report.loaded.items()}
    kept = report.refused
    if len(tensors[OWN_POSITIONS]) > count + 1:
        tensors[OWN_POSITIONS] = tensors[OWN_POSITIONS][: count + 1].clone()
        kept = (*kept, POSITIONS)  # with the rows that are not used, to give them back
    with new_folder(target) as folder:
        save_torch_state_dict(tensors, folder, filename_pattern="model{suffix}.safetensors")
        config.save_pretrained(folder)
        config.generation_settings().save_pretrained(folder)
        registry.save(folder)
        _keep_the_rest(source, files, kept, folder / SIDE_FOLDER)
        write_card(folder, converted_from=released)
        share_files(folder)
    return report, clip_report


def export(source: str | Path, target: str | Path) -> int:
    """Write a model folder of this project in the published layout.

    A converted checkpoint gets its own files back; another model gets new ones, without the tensors that the
    published model carries and does not use.

    Args:
        source: model folder.
        target: new folder.

    Returns:
        The number of tensors written.

    Raises:
        OutputExistsError: if `target` is there already.
        CheckpointError: if the published code would compute something else with these weights.
    """
    source, target = Path(source), Path(target)
    refuse_existing(target)
    config = read_model_config(source)
    _refuse_other_methods(config, source)
    files = TensorFiles(source)
    own = {name: LlavaBackbone.module_name(name) for name in files}
    names = {official_name(today): name for name, today in own.items() if not today.startswith(TOWER)}
    side = source / SIDE_FOLDER
    with new_folder(target) as folder:
        if side.is_dir():
            return _export_as_it_was(files, names, side, folder)
        tensors = {official: files[own] for official, own in names.items()}
        save_torch_state_dict(tensors, folder, filename_pattern="pytorch_model{suffix}.bin", safe_serialization=False)
        registry = TokenRegistry.load(source, config.token_strings)
        registry.renamed(TokenStrings.released(config.method_settings.num_latents)).save_published(folder)
        write_json(folder / "config.json", _official_config(config))
        share_files(folder)
    return len(tensors)


def _own_clip_name(name: str) -> str | None:
    renamed = from_clip(name)
    return None if renamed is None else NETWORK + renamed


def _configuration(source: Path, files: TensorFiles, clip_folder: Path) -> tuple[AnchorSegConfig, TokenRegistry]:
    clip = clip_config(clip_folder)
    if clip.image_size != CLIP_SIDE:
        raise CheckpointError(
            f"{clip_folder} is a CLIP for {clip.image_size} pixels, but released checkpoints need {CLIP_SIDE}; give "
            "openai/clip-vit-large-patch14-336"
        )
    _check_switches(read_config(source), files, source)
    registry = _registry(source, files)
    sam = {name.removeprefix(SAM_PREFIX): files.shape(name) for name in files if name.startswith(SAM_PREFIX)}
    config = AnchorSegConfig(
        architectures=["AnchorSegModel"],
        language_config=original_config(source, clip),
        mask_config=infer_sizes(sam),
        method=Method(
            num_latents=len(registry.reasoning_ids),
            clip_statistics="sam",
            padding_attention="zero",
            sam_position_precision="weights",
        ),
        tokens=registry.strings,
        token_ids=token_ids(registry),
    )
    return config, registry


def _check_switches(config: dict[str, Any], files: TensorFiles, source: Path) -> None:
    """Refuse what the published runs had switched off; what the configuration does not say is as in these runs."""
    for key, value in {
        "mm_use_im_start_end": True,
        "pad_train_clip_images": True,
        "vision_tower_for_mask": False,
    }.items():
        if config.get(key, value) != value:
            raise CheckpointError(f"{source}: {key} is {config[key]}; released AnchorSeg checkpoints have {value}")
    # The gate chooses layers in other modes only, and stays at zero where it is not trained.
    mode = config.get("mode", 1 if GATE not in files or not files[GATE].any() else None)
    if mode != 1:
        raise CheckpointError(
            f"{source}: its layer gate is trained or its mode is {mode}, so its states come from several layers; only "
            "checkpoints of mode 1 (the last layer), as all published AnchorSeg runs, can be converted"
        )


def _registry(source: Path, files: TensorFiles) -> TokenRegistry:
    added = read_added(source)
    count = sum(bool(re.fullmatch(r"\[LATENT\d+\]", token)) for token in added)
    registry = TokenRegistry.load(source, TokenStrings.released(count))
    if POSITIONS not in files:
        raise CheckpointError(f"{source} holds no tensor {POSITIONS}; it is no AnchorSeg checkpoint")
    rows = files.shape(POSITIONS)[0]
    if rows != count + 1 and not (rows == PUBLISHED_ROWS > count):
        raise CheckpointError(
            f"{source}: its tokenizer has {count} latent token(s), but {POSITIONS} has {rows} rows instead of "
            f"{count + 1} or {PUBLISHED_ROWS}; the tokenizer is of another checkpoint"
        )
    vocabulary = files.shape(EMBEDDINGS)[0] if EMBEDDINGS in files else len(registry)
    if vocabulary != len(registry):
        raise CheckpointError(
            f"{source}: its tokenizer has {len(registry)} tokens, {count} of them latent, but {EMBEDDINGS} has "
            f"{vocabulary} rows; the tokenizer is of another checkpoint"
        )
    return registry


def _keep_the_rest(source: Path, files: TensorFiles, unused: tuple[str, ...], side: Path) -> None:
    side.mkdir()
    save_file({name: files[name].contiguous() for name in unused}, side / UNUSED_FILE)
    write_json(side / LAYOUT_FILE, files.shards)
    index = index_file(source)
    for path in source.iterdir():
        is_weight = path.suffix in (".bin", ".safetensors", ".pt", ".pth") or path.name.endswith(".index.json")
        if path.is_file() and not path.name.startswith(".") and (path == index or not is_weight):
            shutil.copyfile(path, side / path.name)


def _export_as_it_was(files: TensorFiles, names: dict[str, str], side: Path, folder: Path) -> int:
    unused = TensorFiles(side / UNUSED_FILE)
    shards: dict[str, list[str]] = json.loads((side / LAYOUT_FILE).read_text())
    for shard, members in shards.items():
        _write(folder / shard, {name: _as_it_was(name, files, names, unused) for name in members})
    for path in side.iterdir():
        if path.name not in (UNUSED_FILE, LAYOUT_FILE):
            shutil.copyfile(path, folder / path.name)
    return sum(len(members) for members in shards.values())


def _as_it_was(name: str, files: TensorFiles, names: dict[str, str], unused: TensorFiles) -> Tensor:
    if name not in names:
        return unused[name]
    own = files[names[name]]
    return torch.cat([own, unused[name][len(own) :]]) if name in unused else own


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata={"format": "pt"})
    else:
        torch.save(tensors, path)


def _refuse_other_methods(config: AnchorSegConfig, source: Path) -> None:
    method = config.method_settings
    published = Method(num_latents=method.num_latents, clip_statistics="sam", padding_attention="zero")
    # Of the precision of SAM's positions only the last bits of bf16 depend.
    names = [name for name in Method.INFERENCE if name != "sam_position_precision"]
    other = [name for name in names if getattr(method, name, None) != getattr(published, name)]
    if other:
        shown = ", ".join(f"{name} {getattr(method, name, None)}" for name in other)
        raise CheckpointError(
            f"{source} was trained with {shown}, which the published code does not know: it would draw other masks "
            "with these weights. Train with the published-7b-reasonseg preset to export"
        )


def _official_config(config: AnchorSegConfig) -> dict[str, Any]:
    llava = config.language_config
    text, vision = llava.text_config, llava.vision_config
    return {
        "architectures": ["AnchorSegForCausalLM"],
        "model_type": "llava",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "vocab_size": text.vocab_size,
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "num_hidden_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
        "num_key_value_heads": text.num_key_value_heads,
        "hidden_act": text.hidden_act,
        "rms_norm_eps": text.rms_norm_eps,
        "max_position_embeddings": text.max_position_embeddings,
        "tie_word_embeddings": False,
        "torch_dtype": str(config.dtype).removeprefix("torch."),
        "mm_hidden_size": vision.hidden_size,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_start_end": True,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": llava.vision_feature_layer,
        "mm_vision_tower": f"clip-vit-patch{vision.patch_size}-{vision.image_size}",
        "pad_train_clip_images": True,
        "out_dim": config.mask_sizes.prompt_width,
        "train_mask_decoder": True,
        "mode": 1,
        "num_layers": text.num_hidden_layers + 1,
    }
