"""What decides the method and its objective, declared apart from torch, so that a command line is read at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class MethodOptions:
    """What every head has: the tokens of a target, and how images and masks are read.

    `INFERENCE` names the options that trained weights depend on; the others decide how to train only.
    """

    INFERENCE: ClassVar[tuple[str, ...]] = (
        "num_latents",
        "clip_statistics",
        "padding_attention",
        "sam_position_precision",
    )

    num_latents: int = 0
    """K; a target writes K latent tokens and `<SEG>`."""
    clip_statistics: Literal["clip", "sam"] = "clip"
    """Mean and standard deviation of the language backbone's view; released weights were trained with SAM's."""
    padding_attention: Literal["zero", "plain"] = "zero"
    """Attention output of padding patches in the language model: zero as under variable-length flash attention,
    or what plain attention gives."""
    void_pixels: Literal["background", "ignore"] = "background"
    """Pixels marked to be ignored are trained as background, as published, or left out of every mask term."""
    sam_position_precision: Literal["float32", "weights"] = "float32"
    """Dtype in which SAM's encoding of positions is computed; the published code takes that of the weights."""

    def __post_init__(self) -> None:
        if not 0 <= self.num_latents <= 255:
            raise ValueError(f"num_latents is {self.num_latents}; allowed: 0 to 255 (the paper uses 3, 7, 15, 31)")

    @property
    def bank_length(self) -> int:
        """Queries of one target, K + 1."""
        return self.num_latents + 1


@dataclass(frozen=True, kw_only=True)
class Method(MethodOptions):
    """What the paper switches in its ablations, and the options where releases differ from this project."""

    INFERENCE: ClassVar[tuple[str, ...]] = (
        *MethodOptions.INFERENCE,
        "contextual_queries",
        "spatial_prior",
        "inject_prior",
        "prior_range",
    )

    num_latents: int = 7
    """K; the query bank has K + 1 queries (paper, Table 4). 0 is the single-token baseline."""
    contextual_queries: bool = True
    """Give the K contextual queries to the mask decoder (Table 5, Exp. 4 when off)."""
    spatial_prior: bool = True
    """Compute the similarity of the anchor and the image tokens."""
    inject_prior: bool = True
    """Add the prior to the image features (Table 5, Exp. 2 when off)."""
    token_to_mask: bool = True
    """Train with the token-to-mask consistency (Table 6)."""
    mask_to_token: bool = True
    """Train with the mask-to-token consistency (Table 6)."""
    prior_range: Literal["all", "valid"] = "all"
    """Patches whose similarity sets minimum and maximum: all, as published, or those that show the image."""
    token_sigma: float = 7.0
    """Standard deviation, in patches, of the Gaussian that softens the mask-to-token target (7 on the paper's 24 x 24
    grid)."""
    token_target: Literal["nearest", "area"] = "nearest"
    """How a mask reaches the patch grid: the nearest pixel, or area pooling, which keeps small objects."""
    token_target_precision: Literal["float32", "bf16"] = "float32"
    """Dtype that the softened mask-to-token target is rounded to; the published code rounds to bf16 in every run."""
    cycle_scale: float = 1.0
    """Both directions use scale * r + shift as the logit; published 1 and 0 confine it to [0, 1]."""
    cycle_shift: float = 0.0
    """See `cycle_scale`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        needs_prior = {
            "inject_prior": self.inject_prior,
            "token_to_mask": self.token_to_mask,
            "mask_to_token": self.mask_to_token,
        }
        if not self.spatial_prior and any(needs_prior.values()):
            names = ", ".join(name for name, on in needs_prior.items() if on)
            raise ValueError(f"spatial_prior is off, but {names} needs it; switch these off too, or the prior on")


@dataclass(frozen=True, kw_only=True)
class LisaOptions(MethodOptions):
    """The single-token baseline."""

    def __post_init__(self) -> None:
        if self.num_latents:
            raise ValueError(f"num_latents is {self.num_latents}, but LISA's head writes no latent tokens; use 0")


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the terms; the defaults are the paper's Table 10 (the published 7B ReasonSeg run used dice 2)."""

    ce: float = 1.0
    bce: float = 2.0
    dice: float = 4.0
