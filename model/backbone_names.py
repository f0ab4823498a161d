"""Which backbones there are, declared apart from torch, so that a command line is read at once."""

LANGUAGE_BACKBONES: dict[str, str] = {
    "llava-1.5": "model.llava:LlavaBackbone",
    "llava-pixellm": "model.pixel_llava:PixelLlavaBackbone",
    "llava-pixellm-24": "model.pixel_llava:PixelLlava24Backbone",
}
MASK_BACKBONES: dict[str, str] = {
    "sam": "model.sam:SamBackbone",
    "pixellm": "model.pixel_masks:PixelBackbone",
    "pixellm-published": "model.pixel_masks:PublishedPixelBackbone",
}
"""Names in a model's configuration: module and class."""
