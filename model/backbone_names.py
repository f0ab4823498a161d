"""Which backbones there are, declared apart from torch, so that a command line is read at once."""

LANGUAGE_BACKBONES: dict[str, str] = {
    "llava-1.5": "model.llava:LlavaBackbone",
    "qwen3-vl": "model.qwen_vl:QwenBackbone",
    "qwen2.5-vl": "model.qwen_vl:Qwen25Backbone",
    "llava-pixellm": "model.pixel_llava:PixelLlavaBackbone",
    "llava-pixellm-24": "model.pixel_llava:PixelLlava24Backbone",
}
_LLAVA_SIZES = ("tiny", "mini", "7b", "13b")
LANGUAGE_SIZES: dict[str, tuple[str, ...]] = {
    "llava-1.5": _LLAVA_SIZES,
    "qwen3-vl": ("tiny", "2b", "4b", "8b"),
    "qwen2.5-vl": ("tiny", "7b"),
    "llava-pixellm": _LLAVA_SIZES,
    "llava-pixellm-24": _LLAVA_SIZES,
}
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
