"""Which backbones there are, declared apart from torch, so that a command line is read at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LanguageEntry:
    """A language backbone, as far as a command line asks.

    Attributes:
        place: module and class.
        sizes: by name.
        crops: whether it can look at the middle of an image alone, `--clip_view crop`.
        recordable: whether its parts may be recorded as CUDA graphs: none of them waits for a value.
    """

    place: str
    sizes: tuple[str, ...] = ("tiny", "mini", "7b", "13b")
    crops: bool = False
    recordable: bool = True


LANGUAGE_BACKBONES = {
    "llava-1.5": LanguageEntry(place="model.llava:LlavaBackbone", crops=True),
    "qwen3-vl": LanguageEntry(place="model.qwen_vl:QwenBackbone", sizes=("tiny", "2b", "4b", "8b"), recordable=False),
    "qwen2.5-vl": LanguageEntry(place="model.qwen_vl:Qwen25Backbone", sizes=("tiny", "7b"), recordable=False),
    "llava-pixellm": LanguageEntry(place="model.pixel_llava:PixelLlavaBackbone"),
    "llava-pixellm-24": LanguageEntry(place="model.pixel_llava:PixelLlava24Backbone"),
}
"""Names in a model's configuration."""
MASK_BACKBONES: dict[str, str] = {
    "sam": "model.sam:SamBackbone",
    "sam2.1-large": "model.sam2:Sam2Backbone",
    "sam2.1-base-plus": "model.sam2:Sam2BasePlus",
    "sam2.1-small": "model.sam2:Sam2Small",
    "sam2.1-tiny": "model.sam2:Sam2Tiny",
    "sam3": "model.sam3:Sam3Backbone",
    "pixellm": "model.pixel_masks:PixelBackbone",
    "pixellm-published": "model.pixel_masks:PublishedPixelBackbone",
}
"""Names in a model's configuration: module and class."""
