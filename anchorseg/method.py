"""What decides the method and its objective, declared apart from torch, so that a command line is read at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Method:
    """What the paper switches in its ablations, and the options where releases differ from this project."""

    num_latents: int = 7
    """K; the query bank has K + 1 queries (paper, Table 4). 0 is the single-token baseline."""
    contextual_queries: bool = True
    """Give the K contextual queries to the mask decoder (Table 5, Exp. 4 when off)."""
    spatial_prior: bool = True
    """Compute the similarity of the anchor and the image tokens."""
    inject_prior: bool = True
    """Add the prior to SAM's features (Table 5, Exp. 2 when off)."""
    token_to_mask: bool = True
    """Train with the token-to-mask consistency (Table 6)."""
    mask_to_token: bool = True
    """Train with the mask-to-token consistency (Table 6)."""
    clip_statistics: Literal["clip", "sam"] = "clip"
    """Mean and deviation of the CLIP view; released weights were trained with SAM's."""
    padding_attention: Literal["zero", "plain"] = "zero"
    """Attention output of padding patches in the language model: zero as under variable-length flash attention,
    or what plain attention gives."""
    prior_range: Literal["all", "valid"] = "all"
    """Patches whose similarity sets minimum and maximum: all, as published, or those that show the image."""
    void_pixels: Literal["background", "ignore"] = "background"
    """Pixels marked to be ignored are trained as background, as published, or left out of every mask term."""
    token_sigma: float = 7.0
    """Deviation, in patches, of the Gaussian that softens the mask-to-token target (7 on the paper's 24 x 24 grid)."""
    token_target: Literal["nearest", "area"] = "nearest"
    """How a mask reaches the patch grid: the nearest pixel, or area pooling, which keeps small objects."""
    token_target_precision: Literal["float32", "bf16"] = "float32"
    """Type that the softened mask-to-token target is rounded to; the published code rounds to bf16 in every run."""
    sam_position_precision: Literal["float32", "weights"] = "float32"
    """Type in which SAM's encoding of positions is computed; the published code takes that of the weights."""
    cycle_scale: float = 1.0
    """Both directions use scale * r + shift as the logit; published 1 and 0 confine it to [0, 1]."""
    cycle_shift: float = 0.0
    """See `cycle_scale`."""

    def __post_init__(self) -> None:
        if not 0 <= self.num_latents <= 255:
            raise ValueError(f"num_latents is {self.num_latents}; allowed: 0 to 255 (the paper uses 3, 7, 15, 31)")
        needs_prior = {
            "inject_prior": self.inject_prior,
            "token_to_mask": self.token_to_mask,
            "mask_to_token": self.mask_to_token,
        }
        if not self.spatial_prior and any(needs_prior.values()):
            names = ", ".join(name for name, on in needs_prior.items() if on)
            raise ValueError(f"spatial_prior is off, but {names} needs it; switch these off too, or the prior on")

    @property
    def bank_length(self) -> int:
        """Queries of one target, K + 1."""
        return self.num_latents + 1


INFERENCE_OPTIONS = (
    "num_latents",
    "contextual_queries",
    "spatial_prior",
    "inject_prior",
    "clip_statistics",
    "padding_attention",
    "prior_range",
    "sam_position_precision",
)
"""Fields of `Method` that trained weights depend on; the others decide how to train only."""


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the terms; the defaults are the paper's Table 10 (the published 7B ReasonSeg run used dice 2)."""

    ce: float = 1.0
    bce: float = 2.0
    dice: float = 4.0
