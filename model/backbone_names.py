"""Which backbones there are, declared apart from torch, so that a command line is read at once."""

LANGUAGE_BACKBONES: dict[str, str] = {"llava-1.5": "model.llava:LlavaBackbone"}
MASK_BACKBONES: dict[str, str] = {"sam": "model.sam:SamBackbone"}
"""Names in a model's configuration: module and class."""
