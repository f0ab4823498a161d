"""The model's configuration: method switches, token strings, sizes of both backbones."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from transformers import GenerationConfig, LlavaConfig, PreTrainedConfig

from anchorseg.tokens import TokenStrings
from model.sam import SamSizes

Typed = TypeVar("Typed")


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
)
"""Fields of `Method` that trained weights depend on; the others decide how to train only."""


def strict(kind: type[Typed], values: dict[str, Any], where: str) -> Typed:
    """Build a frozen dataclass from a mapping and name any key that it does not have.

    Raises:
        ValueError: for an unknown key, with the nearest known ones, or a value out of range.
    """
    allowed = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{where} has no key {key!r}{hint} Known keys: {', '.join(allowed)}")
    return kind(**values)


def _as_dict(value: Any) -> dict[str, Any]:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else dict(value or {})  # type: ignore[arg-type]


class AnchorSegConfig(PreTrainedConfig):
    """Configuration of `AnchorSegModel`: plain JSON on disk, typed views in code.

    `sam`, `method` and `tokens` are stored as dictionaries and read as `SamSizes`, `Method` and `TokenStrings`
    through `sam_sizes`, `method_settings` and `token_strings`; an unknown key in any of them is refused.
    """

    model_type = "anchorseg"
    sub_configs_defaults = {"llava_config": LlavaConfig}

    llava_config: Any = None
    sam: dict | None = None
    method: dict | None = None
    tokens: dict | None = None
    token_ids: dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.sam = _as_dict(strict(SamSizes, _as_dict(self.sam), "config.sam"))
        self.method = _as_dict(strict(Method, _as_dict(self.method), "config.method"))
        default = _as_dict(TokenStrings.for_bank(self.method["num_latents"]))
        self.tokens = _as_dict(strict(TokenStrings, _as_dict(self.tokens) or default, "config.tokens"))
        if len(self.tokens["reasoning"]) != self.method["num_latents"]:
            raise ValueError(
                f"config.tokens names {len(self.tokens['reasoning'])} reasoning tokens, but config.method.num_latents "
                f"is {self.method['num_latents']}; they must agree"
            )

    @property
    def sam_sizes(self) -> SamSizes:
        """Sizes of SAM's parts."""
        return SamSizes(**self.sam)  # type: ignore[arg-type]

    @property
    def method_settings(self) -> Method:
        """Switches of the method."""
        return Method(**self.method)  # type: ignore[arg-type]

    @property
    def token_strings(self) -> TokenStrings:
        """Strings of the added tokens."""
        return TokenStrings(**self.tokens)  # type: ignore[arg-type]

    @property
    def clip_side(self) -> int:
        """Side in pixels of the CLIP view."""
        return self.llava_config.vision_config.image_size

    @property
    def token_grid(self) -> int:
        """Patches along a side of the CLIP view; P is its square."""
        return self.clip_side // self.llava_config.vision_config.patch_size

    def generation_settings(self) -> GenerationConfig:
        """Greedy decoding between the model's first and last tokens."""
        ids = self.token_ids or {}
        return GenerationConfig(bos_token_id=ids["bos"], eos_token_id=ids["eos"], do_sample=False)
