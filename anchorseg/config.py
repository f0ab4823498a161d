"""The model's configuration as its folder holds it: method, token strings, sizes of both backbones."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig, LlavaConfig, PreTrainedConfig

from anchorseg.method import Method
from anchorseg.tokens import TokenStrings
from model.sam import SamSizes
from utils.files import to_json
from utils.settings import from_dict
from utils.version import __version__


@dataclass(frozen=True, kw_only=True)
class TokenIds:
    """Ids that the model looks for in sequences, and between which it writes."""

    segment: int
    reject: int
    reasoning: tuple[int, ...]
    bos: int
    eos: int


def _as_dict(value: Any) -> dict[str, Any]:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else dict(value or {})  # type: ignore[arg-type]


def _checked(kind: type, value: Any, section: str) -> dict[str, Any]:
    """A section as a dictionary; an unknown key, or a value that is not allowed, is refused by its name."""
    return dataclasses.asdict(from_dict(kind, _as_dict(value), source=f"In {section}, "))


class AnchorSegConfig(PreTrainedConfig):
    """Configuration of `AnchorSegModel`: plain JSON on disk, typed views in code.

    `sam`, `method` and `tokens` are stored as dictionaries and read as `SamSizes`, `Method` and `TokenStrings`
    through `sam_sizes`, `method_settings` and `token_strings`; `token_ids` has the fields of `TokenIds`. An unknown key
    in any of them, or a value that is not allowed, is refused.
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
        self.sam = _checked(SamSizes, self.sam, "sam")
        self.method = _checked(Method, self.method, "method")
        default = TokenStrings.for_bank(self.method["num_latents"])
        self.tokens = _checked(TokenStrings, self.tokens or default, "tokens")
        if self.token_ids is not None:
            self.token_ids = to_json(_checked(TokenIds, self.token_ids, "token_ids"))
        if len(self.tokens["reasoning"]) != self.method["num_latents"]:
            raise ValueError(
                f"config.tokens names {len(self.tokens['reasoning'])} reasoning tokens, but config.method.num_latents "
                f"is {self.method['num_latents']}; they must agree"
            )

    def to_dict(self) -> dict[str, Any]:
        """As in config.json, with the version of this project that writes it."""
        return {**super().to_dict(), "anchorseg_version": __version__}

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
