"""What transformers' Auto classes import for a model folder of this project; see `auto`."""

from __future__ import annotations

from transformers import AutoModel, AutoProcessor

from anchorseg.inference.processor import AnchorSegProcessor
from anchorseg.method.config import AnchorSegConfig
from anchorseg.method.modeling import AnchorSegModel

__all__ = ["AnchorSegConfig", "AnchorSegModel", "AnchorSegProcessor"]

AutoModel.register(AnchorSegConfig, AnchorSegModel, exist_ok=True)
AutoProcessor.register(AnchorSegConfig, AnchorSegProcessor, exist_ok=True)
