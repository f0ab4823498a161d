"""Adapters through peft: LoRA on the language model, trained rows of the vocabulary tables; inject, merge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import LoraConfig, PeftConfig, TrainableTokensConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn.functional import linear

from model.lora_settings import LoraSettings


def add_lora(language_model: nn.Module, settings: LoraSettings) -> None:
    """Put adapters on the target projections of the language model, in place.

    Only the module given is searched: CLIP and SAM have projections of the same names.

    Raises:
        ValueError: if no projection has one of the target names.
    """
    names = [name for name, _ in language_model.named_modules() if name.split(".")[-1] in settings.targets]
    if not names:
        raise ValueError(
            f"lora targets {', '.join(settings.targets)}: no such projection in the language model; "
            "use names such as q_proj, k_proj, v_proj, o_proj"
        )
    config: PeftConfig = LoraConfig(
        r=settings.r, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=names, bias="none"
    )
    inject_adapter_in_model(config, language_model)


def add_token_rows(network: nn.Module, tables: Sequence[str], ids: Sequence[int]) -> None:
    """Give rows of vocabulary tables a parameter of their own, in place, so that the tables can stay frozen.

    Each row begins as the table has it, and replaces it in every forward pass until `merge_lora`.

    Args:
        network: holds the tables.
        tables: names of embedding and linear layers with (V, D) weights.
        ids: token ids, the rows.
    """
    config = TrainableTokensConfig(token_indices=list(ids), target_modules=list(tables))
    inject_adapter_in_model(config, network)


def lora_layers(module: nn.Module) -> list[tuple[str, LoraLayer]]:
    """Names and layers that carry LoRA, in module order."""
    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, LoraLayer)]


def table_parameters(table: nn.Module) -> list[nn.Parameter]:
    """What a vocabulary table trains: its added rows where they are apart, otherwise its weight."""
    return list((table.trainable_tokens_delta if isinstance(table, TrainableTokensLayer) else table).parameters())


def tied_logits(table: nn.Module, hidden: Tensor) -> Tensor:
    """Logits (..., V) of states (..., D) by an embedding that is the head, too; its added rows need no copy of it."""
    if not isinstance(table, TrainableTokensLayer):
        return linear(hidden, table.weight)  # type: ignore[arg-type]
    logits = linear(hidden, table.get_base_layer().weight)
    for name in table.active_adapters:
        ids = torch.tensor(table.token_indices[name], device=logits.device)
        # Cloned, for ZeRO stage 3 takes parameters away before backward, which asks for them.
        rows = table.trainable_tokens_delta[name].to(logits.dtype).clone()
        logits = logits.index_copy(-1, ids, linear(hidden, rows))
    return logits


def merge_lora(module: nn.Module) -> int:
    """Fold every adapter, LoRA and token rows, into its base weight and put the plain layer back, in place.

    Returns:
        The number of layers merged; 0 if there is no adapter, so that merging twice equals merging once.
    """
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, BaseTunerLayer)]
    for name, layer in layers:
        layer.merge(safe_merge=True)
        parent_name, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent_name), child, layer.get_base_layer())
    return len(layers)
