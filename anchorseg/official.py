"""Names of the published implementation's tensors, and the configuration that its weights mean."""

from __future__ import annotations

import re

_RULES: tuple[tuple[str, str], ...] = (
    (r"^llava\.network\.model\.language_model\.", "model."),
    (r"^llava\.network\.lm_head\.", "lm_head."),
    (r"^llava\.network\.model\.multi_modal_projector\.linear_1\.", "model.mm_projector.0."),
    (r"^llava\.network\.model\.multi_modal_projector\.linear_2\.", "model.mm_projector.2."),
    (r"^llava\.network\.model\.vision_tower\.", "clip.vision_model."),
    (r"^query_bank\.anchor_projection\.", "model.text_hidden_fcs.0."),
    (r"^query_bank\.contextual_projection\.", "model.latent_hidden_fcs.0."),
    (r"^query_bank\.positions$", "model.visual_model.mask_decoder.latent_token_positional_embedding"),
    (r"^sam\.mask_token_positions$", "model.visual_model.mask_decoder.positional_embedding"),
    (r"^sam\.", "model.visual_model."),
)


def official_name(name: str) -> str:
    """The released checkpoint's name of one of this project's tensors.

    The CLIP tower is not in released checkpoints; its tensors are named `clip.vision_model.` + name.

    Raises:
        KeyError: if the tensor has no counterpart there.
    """
    for pattern, replacement in _RULES:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    raise KeyError(name)
