"""AnchorSeg: language grounded query banks for reasoning segmentation; the method, and what users import."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anchorseg import auto

if TYPE_CHECKING:
    from anchorseg.inference.answer import Answer, Target
    from anchorseg.inference.predictor import AnchorSegPredictor
    from anchorseg.inference.processor import AnchorSegProcessor
    from anchorseg.inference.session import ImageSession
    from anchorseg.method.config import AnchorSegConfig
    from anchorseg.method.modeling import AnchorSegModel
    from anchorseg.method.options import Method
    from anchorseg.weights.folder import load_model
    from anchorseg.weights.hub import push_to_hub

__all__ = [
    "AnchorSegConfig",
    "AnchorSegModel",
    "AnchorSegPredictor",
    "AnchorSegProcessor",
    "Answer",
    "ImageSession",
    "Method",
    "Target",
    "load_model",
    "push_to_hub",
]

_MODULES = {
    "AnchorSegConfig": "method.config",
    "AnchorSegModel": "method.modeling",
    "AnchorSegPredictor": "inference.predictor",
    "AnchorSegProcessor": "inference.processor",
    "Answer": "inference.answer",
    "ImageSession": "inference.session",
    "Method": "method.options",
    "Target": "inference.answer",
    "load_model": "weights.folder",
    "push_to_hub": "weights.hub",
}


def _refuse_namesakes() -> None:
    """Refuse to go on where other packages hide those beside this one, whose names are short.

    Raises:
        ImportError: naming the package, where it was found, and the remedy.
    """
    root = Path(__file__).resolve().parent.parent
    for name in ("utils", "model", "dataset"):
        spec = find_spec(name)
        places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
        if not any(Path(place).resolve().is_relative_to(root / name) for place in places if place):
            where = "cannot be found" if spec is None else f"is imported from {places[-1] or places[0]}"
            raise ImportError(
                f"AnchorSeg's package {name!r} ({root / name}) {where}: a package of the same name comes first on "
                "sys.path; rename yours, or start python in another folder and with a script that lies elsewhere"
            )


_refuse_namesakes()
auto.register()


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: torch and transformers take seconds."""
    if name == "__version__":
        return import_module("utils.version").__version__
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
