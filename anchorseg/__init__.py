"""AnchorSeg: language grounded query banks for reasoning segmentation; the method, and what users import."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anchorseg.build import load_model
    from anchorseg.config import AnchorSegConfig
    from anchorseg.method import Method
    from anchorseg.modeling import AnchorSegModel
    from anchorseg.predictor import AnchorSegPredictor, Answer, ImageSession, Target

__all__ = [
    "AnchorSegConfig",
    "AnchorSegModel",
    "AnchorSegPredictor",
    "Answer",
    "ImageSession",
    "Method",
    "Target",
    "load_model",
]

_MODULES = {
    "AnchorSegConfig": "config",
    "AnchorSegModel": "modeling",
    "AnchorSegPredictor": "predictor",
    "Answer": "predictor",
    "ImageSession": "predictor",
    "Method": "method",
    "Target": "predictor",
    "load_model": "build",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: torch and transformers take seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
