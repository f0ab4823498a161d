"""Write the miniature checkpoint in the published layout: configuration, sharded weights, tokenizer, CLIP beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from tests.parity import rules
from tests.parity.samples import ReferenceFileError

TOKENIZER_FILES = ("tokenizer.model", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")
CLIP_PREFIX = "clip.vision_model."
Shapes = dict[str, tuple[tuple[int, ...], str]]


def read_json(folder: Path, name: str) -> Any:
    """A JSON file of the fixture folder.

    Raises:
        ReferenceFileError: if it is absent or damaged.
    """
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReferenceFileError(f"{name} is missing in {folder}, and the weights follow from it") from None
    except ValueError as error:
        raise ReferenceFileError(f"{name} is unreadable ({error}); copy it again") from None


def key_shapes(folder: Path) -> Shapes:
    """Shape and type of every tensor of the released checkpoint, by name."""
    return {name: (tuple(shape), dtype) for name, (shape, dtype) in read_json(folder, "state_dict_keys.json").items()}


def lora_pair(name: str, shape: tuple[int, ...], rank: int) -> tuple[Tensor, Tensor]:
    """A (r, in) and B (out, r) of the adapter on weight `name` (out, in)."""
    stem = name.removesuffix(".weight")
    down = rules.tensor(f"{stem}.lora_A.weight", (rank, shape[1]))
    up = rules.tensor(f"{stem}.lora_B.weight", (shape[0], rank))
    return torch.from_numpy(down), torch.from_numpy(up)


def _constant(name: str, shape: tuple[int, ...], config: dict[str, Any]) -> Tensor | None:
    """What no rule draws: the rotary frequencies and a flag."""
    if name.endswith("rotary_emb.inv_freq"):
        count = shape[0]
        return 1.0 / config.get("rope_theta", 10000.0) ** (torch.arange(count, dtype=torch.float32) / count)
    return torch.tensor(True) if name == "model.decoder_modules_initialized" else None


def _weight(name: str, shape: tuple[int, ...], settings: dict[str, Any], merged: bool) -> Tensor:
    constant = _constant(name, shape, settings["hf_config_of_released_ckpt"])
    if constant is not None:
        return constant
    weight = torch.from_numpy(rules.tensor(name, shape))
    lora = settings["lora"]
    adapted = name.split(".")[-2] in lora["targets"].split(",") and name.startswith("model.layers.")
    if merged and adapted:
        down, up = lora_pair(name, shape, lora["r"])
        weight = weight + lora["alpha"] / lora["r"] * up @ down
    return weight


def write_checkpoint(folder: Path, target: Path, *, merged: bool) -> None:
    """Write the checkpoint without its CLIP.

    Args:
        folder: fixture folder with config.json, state_dict_keys.json and the tokenizer.
        target: folder to write into.
        merged: fold the adapters into q_proj and v_proj, as releases do; otherwise write the base weights.
    """
    settings = read_json(folder, "config.json")
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(settings["hf_config_of_released_ckpt"]))
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)
    shapes = key_shapes(folder)
    tensors = {name: _weight(name, shape, settings, merged) for name, (shape, _) in shapes.items()}
    names = list(tensors)
    shards = {
        "pytorch_model-00001-of-00002.bin": names[: len(names) // 2],
        "pytorch_model-00002-of-00002.bin": names[len(names) // 2 :],
    }
    for shard, members in shards.items():
        torch.save({name: tensors[name] for name in members}, target / shard)
    index = {"metadata": {}, "weight_map": {name: shard for shard, members in shards.items() for name in members}}
    (target / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def write_clip(folder: Path, target: Path) -> None:
    """Write the CLIP tower as a folder of its own."""
    config = read_json(folder, "config.json")["clip_config"]
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        tower = CLIPVisionModel(CLIPVisionConfig(**{k: v for k, v in config.items() if k != "model_type"}))
    shapes = {name.removeprefix("vision_model."): value.shape for name, value in tower.named_parameters()}
    tensors = {
        f"vision_model.{name}": torch.from_numpy(rules.tensor(CLIP_PREFIX + name, tuple(shape)))
        for name, shape in shapes.items()
    }
    torch.save(tensors, target / "pytorch_model.bin")
