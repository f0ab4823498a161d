"""Manifest of written scenes: a second call finds them, other files are never overwritten."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.errors import DataError
from utils.files import write_json


def begin(path: Path, manifest: Mapping[str, Any], folders: Sequence[Path]) -> bool:
    """Claim folders for what a manifest describes.

    Args:
        path: of the manifest's file.
        manifest: what decides the content, as JSON can hold it.
        folders: that will be written; without a manifest's file they must be empty or absent.

    Returns:
        False if all of it is there already.

    Raises:
        DataError: if the file describes something else, or a folder holds other files.
    """
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found == {**manifest, "complete": True}:
            return False
        if {**found, "complete": True} != {**manifest, "complete": True}:
            raise DataError(str(path), f"the folder holds other scenes ({found}); give a new folder")
    else:
        for folder in folders:
            if folder.exists() and any(folder.iterdir()):
                raise DataError(str(folder), "the folder holds files that are not drawn scenes; give a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**manifest, "complete": False})
    return True


def finish(path: Path, manifest: Mapping[str, Any]) -> None:
    """Record that everything is written."""
    write_json(path, {**manifest, "complete": True})
