"""Write digest.npz from the full fixtures: ``python -m tests.parity.make_digest``."""

from __future__ import annotations

import sys
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from tests.parity import rules
from tests.parity.checks import JSON_CHECKS, RULE_FILES
from tests.parity.digest import DIGEST, fixture_folder
from tests.parity.samples import SAMPLES, sampled

ARRAYS = (
    "losses.npz",
    "quick_select.npz",
    "decoder.npz",
    "preprocess.npz",
    "clip_tower.npz",
    "sam_image_encoder.npz",
    "forward_train.npz",
    "train_steps.npz",
)
INPUTS = (
    "losses.npz/*.map",
    "losses.npz/*.mask",
    "losses.npz/*.targets",
    "quick_select.npz/last_hidden",
    "preprocess.npz/json.*",
    "forward_train.npz/in.masks_list.*",
)
"""Arrays that others are computed from and no rule gives: kept whole whatever their size."""
LEFT_OUT = "*.clip_unpadded_variant"


def _is_whole(file: str, name: str, array: np.ndarray) -> bool:
    if f"{file.removesuffix('.npz')}/{name}" in rules.RULES:
        return False
    return array.size <= SAMPLES or any(fnmatch(f"{file}/{name}", pattern) for pattern in INPUTS)


def _members(path: Path) -> dict[str, np.ndarray]:
    kept: dict[str, np.ndarray] = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            array = archive[name]
            if not fnmatch(name, LEFT_OUT):
                kept |= {name: array} if _is_whole(path.name, name, array) else sampled(name, array)
    return {f"{path.name}/{name}": values for name, values in kept.items()}


def main() -> None:
    """Write the digest beside this script."""
    folder = fixture_folder()
    if folder is None:
        sys.exit("error: the full fixtures are not beside the repository; point ANCHORSEG_SHARED to their folder.")
    kept: dict[str, np.ndarray] = {}
    for file in (*JSON_CHECKS, *RULE_FILES):
        kept[file] = np.frombuffer((folder / file).read_bytes(), dtype=np.uint8)
    for file in ARRAYS:
        kept |= _members(folder / file)
    np.savez_compressed(DIGEST, **kept)


if __name__ == "__main__":
    main()
