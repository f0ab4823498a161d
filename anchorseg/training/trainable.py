"""What trains: the parameters of the paper's recipe, by group (paper, Table 7); and a digest of what does not."""

from __future__ import annotations

import hashlib
from typing import Literal

import torch
from torch import nn

from anchorseg.method.modeling import AnchorSegModel
from model.lora import lora_layers, table_parameters

SAMPLED = 64


def _lora_parameters(model: AnchorSegModel) -> list[nn.Parameter]:
    return [
        parameter for _, layer in lora_layers(model) for name, parameter in layer.named_parameters() if "lora_" in name
    ]


def trainable_groups(model: AnchorSegModel) -> dict[str, list[nn.Parameter]]:
    """Parameters that the paper trains, by name of the group; where rows of the tables are apart, these alone."""
    return {name: group for name, group in _groups(model).items() if name not in model.method.left_out}


def leave_out(model: AnchorSegModel) -> None:
    """Make zero, and freeze, what the method's options leave out."""
    groups = _groups(model)
    for name in model.method.left_out:
        for parameter in groups[name]:
            parameter.requires_grad_(False).zero_()


def _groups(model: AnchorSegModel) -> dict[str, list[nn.Parameter]]:
    language = model.get_submodule(model.language.saved_as)
    return {
        "embeddings and head": [
            parameter
            for table in model.language.vocabulary_tables
            for parameter in table_parameters(language.get_submodule(table))
        ],
        "LoRA": _lora_parameters(model),
        **model.language.trained(),
        **model.masks.trained(),
        **model.head.trained(),
    }


def set_trainable(model: AnchorSegModel, scope: Literal["paper", "all"]) -> None:
    """Freeze everything but the paper's groups, or nothing (a model trained from scratch), and `leave_out`."""
    model.requires_grad_(scope == "all")
    for parameters in trainable_groups(model).values():
        for parameter in parameters:
            parameter.requires_grad_(True)
    leave_out(model)


def describe_trainable(model: AnchorSegModel) -> str:
    """A table of the groups and the share of all parameters that trains."""
    lines = [
        f"  {name:<22}{sum(p.numel() for p in parameters):>15,}" for name, parameters in trainable_groups(model).items()
    ]
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    grouped = sum(p.numel() for parameters in trainable_groups(model).values() for p in parameters)
    if trained > grouped:
        lines.append(f"  {'from scratch':<22}{trained - grouped:>15,}")
    lines.append(f"  {'trained':<22}{trained:>15,}  ({trained / total:.2%} of {total:,})")
    return "\n".join(lines)


def frozen_weights(model: torch.nn.Module) -> str:
    """Digest of the weights that do not train: names, shapes, types, and `SAMPLED` values of each, evenly spread."""
    total = hashlib.blake2b(digest_size=16)
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            continue
        values = parameter.detach().flatten()
        places = torch.linspace(0, max(len(values) - 1, 0), min(len(values), SAMPLED), device=values.device).long()
        total.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        total.update(values[places].float().cpu().numpy().tobytes())
    return total.hexdigest()
