"""Run lengths of COCO masks: runs of background and mask in turn, column by column, as a list or as a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from utils.errors import DataError
from utils.shown import shown

_LONGEST_RUN = 7
"""Most characters of a run: seven hold 35 bits, and no picture has more pixels than 32."""


def decode_runs(run_lengths: Mapping[str, Any], height: int, width: int, path: str | Path) -> np.ndarray:
    """The (H, W) boolean mask of ``{"size": [H, W], "counts": runs}``.

    Unlike `pycocotools.mask.decode`, which leaves the pixels after the last run as memory had them, it refuses runs
    that do not fill the image exactly.

    Raises:
        DataError: if size or runs are not those of a mask of this image.
    """
    size, counts = run_lengths.get("size"), run_lengths.get("counts")
    if not (isinstance(size, list | tuple) and all(type(side) is int for side in size)) or [*size] != [height, width]:
        raise DataError(path, f"a run-length mask has size {shown(size)}, but the image has [{height}, {width}].")
    if isinstance(counts, str | bytes):
        runs = _parse(counts, path)
    elif isinstance(counts, list) and all(type(run) is int for run in counts):
        runs = counts
    else:
        raise DataError(path, '"counts" of a run-length mask must be a text or a list of whole numbers from 0.')
    if any(run < 0 for run in runs):
        raise DataError(path, '"counts" of a run-length mask holds a run below 0; runs must be whole numbers from 0.')
    if sum(runs) != height * width:
        raise DataError(
            path, f"the runs of a mask cover {sum(runs)} pixels, but the image has {height * width}; write it again."
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def encode_runs(mask: np.ndarray) -> dict[str, Any]:
    """A (H, W) boolean mask as ``{"size": [H, W], "counts": text}``, which `decode_runs` reads back exactly."""
    coded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(map(int, coded["size"])), "counts": coded["counts"].decode("ascii")}


def _parse(counts: str | bytes, path: str | Path) -> Sequence[int]:
    """Runs of a compressed text: five bits a character, lowest first, and from the fourth run on as the difference
    from the run two before."""
    try:
        data = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError as error:
        raise DataError(path, "a run-length text holds a character that is not ASCII; write it again.") from error
    values = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(values & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1]) if len(last) else last
    if (values < 0).any() or (values > 63).any() or (len(values) and (not len(last) or last[-1] != len(values) - 1)):
        raise DataError(path, "a run-length text is cut off or holds a character that it cannot have; write it again.")
    if not len(last):
        return []
    if (last - first).max() >= _LONGEST_RUN:
        raise DataError(path, "a run-length text holds a run longer than any picture; write it again.")
    place = np.arange(len(values)) - np.repeat(first, last - first + 1)
    runs = np.add.reduceat((values & 31) << (5 * place), first)
    runs -= np.where(values[last] & 16, 1 << (5 * (last - first + 1)), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return list(map(int, runs))
