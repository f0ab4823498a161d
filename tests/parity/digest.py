"""The digest: every fixture file in one, large arrays as samples; where the fixtures are, and how to unpack it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
DIGEST = FOLDER / "digest.npz"


def fixture_folder() -> Path | None:
    """Folder of the full fixtures: below ANCHORSEG_SHARED or, without it, below the sibling folder `shared`."""
    shared = os.environ.get("ANCHORSEG_SHARED") or FOLDER.parents[2] / "shared"
    folder = Path(shared) / "fixtures" / "parity"
    return folder if folder.is_dir() else None


def unpack(folder: Path) -> Path:
    """Write the digest's files into a folder: text as it was, arrays whole or as samples."""
    files: dict[str, dict[str, np.ndarray]] = {}
    with np.load(DIGEST, allow_pickle=False) as archive:
        for key in archive.files:
            file, _, member = key.partition("/")
            if member:
                files.setdefault(file, {})[member] = archive[key]
            else:
                (folder / file).write_bytes(archive[key].tobytes())
    for file, members in files.items():
        np.savez(folder / file, **members)
    return folder
