"""The model's configuration as its folder holds it: method, token strings, sizes of both backbones."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig

from anchorseg.method.heads import check_masks, head_entry
from anchorseg.method.options import LisaOptions, MethodOptions
from anchorseg.method.tokens import TokenStrings
from model.backbones import language_backbone, mask_backbone
from utils.files import to_json
from utils.geometry import ImageView
from utils.settings import from_dict
from utils.version import __version__

OLD_NAMES = {"llava_config": "language_config", "sam": "mask_config"}
"""Keys that earlier folders have, and what they are called now."""


@dataclass(frozen=True, kw_only=True)
class TokenIds:
    """Ids that the model looks for in sequences, and between which it writes."""

    segment: int
    reject: int
    reasoning: tuple[int, ...]
    bos: int | None
    eos: int
    anchors: tuple[int, ...] = ()


def _as_dict(value: Any) -> dict[str, Any]:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else dict(value or {})  # type: ignore[arg-type]


def _checked(kind: type, value: Any, section: str) -> dict[str, Any]:
    """A section as a dictionary; an unknown key, or a value that is not allowed, is refused by its name."""
    return dataclasses.asdict(from_dict(kind, _as_dict(value), source=f"In {section}, "))


def _without_dtypes(config: Any) -> Any:
    """A configuration without the dtypes of its published weights, in which transformers would build its parts."""
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        part.dtype = None
    return config


class AnchorSegConfig(PreTrainedConfig):
    """Configuration of `AnchorSegModel`: plain JSON on disk, typed views in code.

    `mask_config`, `method` and `tokens` are stored as dictionaries and read as the mask backbone's sizes, the options
    of the head and `TokenStrings` through `mask_sizes`, `method_settings` and `token_strings`; `token_ids` has the
    fields of `TokenIds`. An unknown key in any of them, or a value that is not allowed, is refused. Folders written
    before there was a choice of backbones have `OLD_NAMES`, and are read.
    """

    model_type = "anchorseg"

    language_model: str = "llava-1.5"
    language_config: Any = None
    mask_model: str = "sam"
    mask_config: dict | None = None
    head: str = "anchorseg"
    method: dict | None = None
    tokens: dict | None = None
    token_ids: dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        for old, name in OLD_NAMES.items():
            if old in kwargs:
                setattr(self, name, kwargs.pop(old))
        check_masks(self.head, self.mask_model)
        language = language_backbone(self.language_model)
        self.language_config = _without_dtypes(language.read_config(self.language_config or {}))
        self.mask_config = _checked(mask_backbone(self.mask_model).Sizes, self.mask_config, "mask_config")
        self.method = _checked(head_entry(self.head).Options, self.method, "method")
        super().__post_init__(**kwargs)
        anchors = self.method.get("num_anchors", 1)
        default = TokenStrings.for_bank(self.method["num_latents"], anchors, language.template.image_tokens)
        self.tokens = _checked(TokenStrings, self.tokens or default, "tokens")
        if self.token_ids is not None:
            self.token_ids = to_json(_checked(TokenIds, self.token_ids, "token_ids"))
        if len(self.tokens["reasoning"]) != self.method["num_latents"]:
            raise ValueError(
                f"config.tokens names {len(self.tokens['reasoning'])} reasoning tokens, but config.method.num_latents "
                f"is {self.method['num_latents']}; they must agree"
            )
        if len(self.tokens["anchors"]) != anchors - 1:
            raise ValueError(
                f"config.tokens names {len(self.tokens['anchors'])} anchors before <SEG>, but "
                f"config.method.num_anchors is {anchors}; they must agree"
            )

    def to_dict(self) -> dict[str, Any]:
        """As in config.json, with the version of this project that writes it."""
        return {**super().to_dict(), "anchorseg_version": __version__}

    @property
    def mask_sizes(self) -> Any:
        """Sizes of the mask backbone's parts."""
        return mask_backbone(self.mask_model).Sizes(**self.mask_config)  # type: ignore[arg-type]

    @property
    def method_settings(self) -> MethodOptions:
        """Options of the method: those that every head has, and those of this one."""
        return head_entry(self.head).Options(**self.method)  # type: ignore[arg-type]

    @property
    def token_strings(self) -> TokenStrings:
        """Strings of the added tokens."""
        return TokenStrings(**self.tokens)  # type: ignore[arg-type]

    @property
    def language_view(self) -> ImageView:
        """How images enter the language backbone."""
        method = self.method_settings
        cropped = isinstance(method, LisaOptions) and method.clip_view == "crop"
        backbone = language_backbone(self.language_model)
        return backbone.view(self.language_config, method.clip_statistics, cropped=cropped)

    @property
    def mask_view(self) -> ImageView:
        """How images enter the mask backbone."""
        return self.mask_sizes.view

    def generation_settings(self) -> GenerationConfig:
        """Greedy decoding between the model's first and last tokens."""
        ids = self.token_ids or {}
        return GenerationConfig(bos_token_id=ids["bos"], eos_token_id=ids["eos"], do_sample=False)
