"""Write digest.npz and annotation.json from the full fixtures: ``python -m tests.parity.make_digest``."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import numpy as np

from tests.parity import rules
from tests.parity.reference import ANNOTATION, DIGEST, fixture_folder, sampled_places, summary

WHOLE = 10_000
"""Arrays of up to so many values are kept whole."""

FORWARD = (
    "in.masks_list",
    "in.clip_resize_list",
    "in.sam_mask_shape_list",
    "mid.low_res_masks",
    "mid.similarity_map_256",
    "out.token_to_mask_map",
    "out.similarity_minmax",
    "out.mask_to_token_target",
    "out.pred_masks",
    "out.terms",
)
INPUTS = ("forward_train/in.", "quick_select/last_hidden", "quick_select/seg_token_mask")
FILES: dict[str, tuple[str, ...]] = {
    "losses": (),
    "quick_select": (),
    "decoder": (),
    "preprocess": (),
    "forward_train": FORWARD,
}
"""File -> beginnings of the arrays taken from it; none means all."""


def _is_wanted(file: str, array: str) -> bool:
    return array.startswith(FILES[file] or "") and not array.endswith("clip_unpadded_variant")


def _is_whole(name: str, array: np.ndarray) -> bool:
    if name in rules.RULES:
        return False
    is_mask = array.dtype.kind in "bu" and name.endswith("mask")
    binary = name.endswith("targets") and set(np.unique(array)) <= {0, 1}
    return array.size <= WHOLE or name.startswith(INPUTS) or is_mask or binary


def _kept(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    if _is_whole(name, values):
        return {name: values}
    return {
        f"{name}#shape": np.array(values.shape),
        f"{name}#values": values.reshape(-1)[sampled_places(values.size)],
        f"{name}#summary": summary(values),
    }


def main() -> None:
    """Write both files beside this script."""
    folder = fixture_folder()
    if folder is None:
        sys.exit("error: the full fixtures are not beside the repository; point ANCHORSEG_SHARED to their folder.")
    kept: dict[str, Any] = {}
    for file in FILES:
        with np.load(folder / f"{file}.npz") as archive:
            for array in archive.files:
                if _is_wanted(file, array):
                    kept |= _kept(f"{file}/{array}", archive[array])
    np.savez_compressed(DIGEST, **kept)
    shutil.copyfile(folder / "preprocess_anno.json", ANNOTATION)


if __name__ == "__main__":
    main()
