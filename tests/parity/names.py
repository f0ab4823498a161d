"""Names: every published tensor has its place here or a reason to have none; the same parts train."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from anchorseg.method.modeling import AnchorSegModel
from anchorseg.weights.official_names import UNUSED, official_name
from model.lora import lora_layers
from tests.parity import released
from tests.parity.context import Context
from tests.parity.reference import Row

TRAINING_CLIP_PREFIX = "model.vision_tower.vision_tower.vision_model."
"""Beginning of CLIP's names while the published model trains."""

SAM_SIZES = {
    "img_size": "image_size",
    "patch_size": "patch_size",
    "encoder_embed_dim": "encoder_width",
    "encoder_depth": "encoder_depth",
    "encoder_num_heads": "encoder_heads",
    "encoder_global_attn_indexes": "global_attention",
    "window_size": "window_size",
    "prompt_embed_dim": "prompt_width",
    "mask_in_chans": "mask_channels",
    "decoder_depth": "decoder_depth",
    "decoder_heads": "decoder_heads",
    "decoder_mlp_dim": "decoder_mlp",
}
"""config.json's names of SAM's sizes, and this project's."""


def is_unused(name: str) -> bool:
    """Whether the published model carries a tensor without using it."""
    return re.search(UNUSED, name) is not None


def _compare(file: str, array: str, expected: set[Any], found: set[Any]) -> list[Row]:
    """One row for what agrees, and a failing one for each name that does not."""
    wrong = {name: "not in this model" for name in expected - found} | {
        name: "not in the file" for name in found - expected
    }
    rows = [Row(file, array, "pass", 0.0, f"{len(expected & found)} names")]
    return rows + [Row(file, f"{array}: {name}", "FAIL", note=note) for name, note in sorted(wrong.items(), key=str)]


def check_state_dict(path: Path, context: Context) -> list[Row]:
    """state_dict_keys.json: names and shapes."""
    listed = released.key_shapes(path.parent)
    used = {(name, shape) for name, (shape, _) in listed.items() if not is_unused(name)}
    own = {official_name(name): tuple(value.shape) for name, value in context.model.state_dict().items()}
    found = {(name, shape) for name, shape in own.items() if not name.startswith(released.CLIP_PREFIX)}
    unused = sorted(name for name in listed if is_unused(name))
    remark = Row(path.name, "unused", "note", note=f"{len(unused)} tensors: {', '.join(unused)}")
    return [*_compare(path.name, "names and shapes", used, found), remark]


def check_trainable(path: Path, context: Context) -> list[Row]:
    """trainable.json: what trains, what does not, and which projections have an adapter."""
    listed = released.read_json(path.parent, path.name)
    model = context.training_model()
    parts = {True: set[str](), False: set[str]()}
    for name, parameter in model.named_parameters():
        parts[parameter.requires_grad].add(official_name(name))
    rows = []
    for array, trains in (("trainable", True), ("frozen", False)):
        names = {name.replace(TRAINING_CLIP_PREFIX, released.CLIP_PREFIX) for name in listed[array]}
        rows += _compare(path.name, array, {name for name in names if not is_unused(name)}, parts[trains])
    rows += _compare(path.name, "lora_target_modules", set(listed["lora_target_modules"]), _adapted(model))
    surplus = sorted(set(listed) - {"trainable", "frozen", "lora_target_modules"})
    return rows + [Row(path.name, name, "FAIL", note="unknown array") for name in surplus]


def check_config(path: Path, context: Context) -> list[Row]:
    """config.json: the sizes of SAM and the token ids, which the converter reads off tensors and tokenizer."""
    settings, config = context.settings, context.model.config
    rows = []
    for key, own in SAM_SIZES.items():
        found = getattr(config.mask_sizes, own)
        found = list(found) if isinstance(found, tuple) else found
        rows.append(_equal(path.name, f"sam.{key}", settings["sam"][key], found))
    *latents, segment = context.model.bank_ids
    start, end = context.registry.image_ids
    names = {"SEG": segment, "REJ": context.registry.reject_id, "LATENT": latents, "im_start": start, "im_end": end}
    for key, found in {**names, "total": len(context.registry)}.items():
        rows.append(_equal(path.name, f"tokens.{key}", settings["tokens"][key], found))
    return [*rows, _equal(path.name, "latent_token_num", settings["latent_token_num"], config.method["num_latents"])]


def _equal(file: str, array: str, expected: Any, found: Any) -> Row:
    agrees = expected == found
    return Row(file, array, "pass" if agrees else "FAIL", note="" if agrees else f"{found} instead of {expected}")


def _adapted(model: AnchorSegModel) -> set[str]:
    """Published names of the modules that carry an adapter."""
    names = (name for name, _ in lora_layers(model))
    return {official_name(f"{name}.weight").removesuffix(".weight") for name in names}
