"""Presets: models of a named size, `tiny`, `mini`, `7b` or `13b`."""

from __future__ import annotations

from anchorseg.method.config import AnchorSegConfig
from anchorseg.method.options import MethodOptions
from anchorseg.method.tokens import TokenRegistry
from model.backbones import language_backbone, mask_backbone

SIZES = ("tiny", "mini", "7b", "13b")


def token_ids(registry: TokenRegistry) -> dict[str, object]:
    """The ids that the model looks for, as its configuration holds them."""
    return {
        "segment": registry.segment_id,
        "reject": registry.reject_id,
        "reasoning": list(registry.reasoning_ids),
        "anchors": list(registry.anchor_ids),
        "bos": registry.bos_id,
        "eos": registry.eos_id,
    }


def preset_config(
    size: str,
    method: MethodOptions,
    registry: TokenRegistry,
    *,
    head: str = "anchorseg",
    language_model: str = "llava-1.5",
    mask_model: str = "sam",
) -> AnchorSegConfig:
    """The configuration of a size, its embedding table sized for the tokenizer."""
    return AnchorSegConfig(
        language_model=language_model,
        language_config=language_backbone(language_model).preset(size, len(registry)),
        mask_model=mask_model,
        mask_config=mask_backbone(mask_model).preset(size),
        head=head,
        method=method,
        tokens=registry.strings,
        token_ids=token_ids(registry),
    )
