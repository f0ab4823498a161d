"""transformers' `AutoConfig`, `AutoModel` and `AutoProcessor` know model folders of this project after its import.

Neither transformers nor torch is imported for it: where transformers lists its models, this one is added when that list
is loaded, and its classes (`auto_classes`) are imported when a folder first asks for them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

MODEL_TYPE = "anchorseg"
_LIST = "transformers.models.auto.configuration_auto"
_CLASSES = f"transformers.models.{MODEL_TYPE}"


def register() -> None:
    """Add this project's model to transformers' list, now or when it is loaded."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    if _LIST in sys.modules:
        _add(sys.modules[_LIST])


def _add(models: ModuleType) -> None:
    models.CONFIG_MAPPING_NAMES[MODEL_TYPE] = "AnchorSegConfig"


class _Finder(MetaPathFinder):
    """Finds transformers' list, and this model's classes where transformers looks for those of its own models."""

    def __init__(self) -> None:
        self._looking = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of one of both modules; None for all others."""
        if fullname == _CLASSES:
            return spec_from_file_location(fullname, Path(__file__).with_name("auto_classes.py"))
        if fullname != _LIST or self._looking:
            return None
        self._looking = True
        try:
            spec = find_spec(fullname)
        finally:
            self._looking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _AddingLoader(spec.loader)
        return spec


class _AddingLoader(Loader):
    """Loads a module as another loader does, and adds the model to it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """See `Loader`."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """See `Loader`."""
        self._loader.exec_module(module)
        _add(module)

    def __getattr__(self, name: str) -> object:
        """What else the loader can do, such as giving the source."""
        if name == "_loader":  # in a copy that has none yet
            raise AttributeError(name)
        return getattr(self._loader, name)
