"""The model's configuration as its folder holds it: method, token strings, sizes of both backbones."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import fields
from typing import Any, TypeVar

from transformers import GenerationConfig, LlavaConfig, PreTrainedConfig

from anchorseg.method import Method
from anchorseg.tokens import TokenStrings
from model.sam import SamSizes

Typed = TypeVar("Typed")


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
