"""Presets: models of a named size of their language backbone (`model.backbone_names.LANGUAGE_SIZES`)."""

from __future__ import annotations

from anchorseg.method.config import AnchorSegConfig
from anchorseg.method.options import MethodOptions
from anchorseg.method.tokens import TokenRegistry, TokenStrings
from model.backbones import language_backbone, mask_backbone

SIZES = ("tiny", "mini", "7b", "13b")


def new_registry(model: bytes, language_model: str, counts: tuple[int, int]) -> TokenRegistry:
    """The tokenizer of a new model: a vocabulary, with the tokens that AnchorSeg adds right after it.

    Args:
        model: of the vocabulary, as `TokenRegistry` takes it.
        language_model: name of the language backbone, whose prompts say what stands around an image.
        counts: latent tokens and anchors of one target, `MethodOptions.token_counts`.

    Raises:
        CheckpointError: if the vocabulary is damaged.
        ValueError: for an unknown backbone.
    """
    latents, anchors = counts
    template = language_backbone(language_model).template
    return TokenRegistry.create(model, TokenStrings.for_bank(latents, anchors, template.image_tokens))


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
