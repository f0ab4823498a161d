"""Names of the published implementation's tensors."""

from __future__ import annotations

from model.llava_files import CLIP_PREFIX, NETWORK, ORIGINAL_NAMES, ROTARY_BUFFERS, rename_prefix

TOWER = NETWORK + CLIP_PREFIX
SAM_PREFIX = "model.visual_model."
POSITIONS = "model.visual_model.mask_decoder.latent_token_positional_embedding"
OWN_POSITIONS = "query_bank.positions"
GATE = "ppm._layer_gate_W_similarity"

UNUSED = rf"{ROTARY_BUFFERS}|^model\.out_mm_projector\.|^ppm\.|^model\.decoder_modules_initialized$"
"""Tensors that the published model carries and does not use: a layer gate, a second projector, constants."""

WITHOUT_LATENTS = r"^model\.latent_hidden_fcs\."
"""What it carries without latents, and does not use either."""

NAMES: tuple[tuple[str, str], ...] = (
    *((NETWORK + own, official) for own, official in ORIGINAL_NAMES),
    ("query_bank.anchor_projection.", "model.text_hidden_fcs.0."),
    ("query_bank.contextual_projection.", "model.latent_hidden_fcs.0."),
    (OWN_POSITIONS, POSITIONS),
    ("sam.mask_token_positions", "model.visual_model.mask_decoder.positional_embedding"),
    ("sam.", SAM_PREFIX),
    (TOWER, "clip.vision_model."),
)
"""Beginnings of names: this project's, and the published implementation's. Released checkpoints hold no CLIP; the
last line gives its tensors a name all the same."""


def own_name(official: str) -> str | None:
    """This project's name of a published tensor, or None if it has no counterpart here."""
    return rename_prefix(official, NAMES)


def official_name(name: str) -> str:
    """The published implementation's name of one of this project's tensors, with or without LoRA around it.

    Raises:
        KeyError: if the tensor has no counterpart there.
    """
    renamed = rename_prefix(name, tuple((official, own) for own, official in NAMES))
    if renamed is None:
        raise KeyError(name)
    return renamed.replace(".base_layer.", ".").replace(".default.", ".")
