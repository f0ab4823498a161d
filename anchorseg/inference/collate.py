"""The collator that suits a model and its tokenizer."""

from __future__ import annotations

from anchorseg.method.config import AnchorSegConfig
from anchorseg.method.tokens import TokenRegistry
from dataset.collator import Collator
from dataset.feature_store import FeatureStore
from dataset.prompt import PromptEncoder
from model.backbones import language_backbone


def make_collator(
    config: AnchorSegConfig,
    registry: TokenRegistry,
    *,
    max_length: int,
    share_prefix: bool = True,
    store: FeatureStore | None = None,
    latents: int | None = None,
) -> Collator:
    """The collator that suits a model and its tokenizer; with `latents`, query banks have so many latent tokens."""
    language_view, language = config.language_view, language_backbone(config.language_model)
    return Collator(
        PromptEncoder(
            registry,
            language.template,
            image_placeholder=language.placeholder,
            num_image_tokens=language_view.num_tokens,
            max_length=max_length,
            latents=latents,
        ),
        language_view,
        config.mask_view,
        share_prefix=share_prefix,
        store=store,
    )
