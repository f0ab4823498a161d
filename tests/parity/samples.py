"""Reading .npz files, and samples that stand for large arrays.

A file may hold an array whole, or as a sample: some values at fixed places with shape, minimum, maximum and sums, which
is what the digest of the tests keeps of large arrays. One comparison serves both.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from utils.errors import UserError

SAMPLES = 1024
"""Values that a sample keeps of an array."""


class ReferenceFileError(UserError):
    """A file or an array that cannot be used, and why."""


def places(size: int, count: int) -> np.ndarray:
    """Flat indices of the `count` values that a sample keeps of an array of `size` values."""
    return np.arange(count, dtype=np.int64) * 2_654_435_761 % size


def summary(array: np.ndarray) -> np.ndarray:
    """Minimum, maximum, sum and sum of magnitudes."""
    values = array.astype(np.float64)
    return np.array([values.min(), values.max(), values.sum(), np.abs(values).sum()])


def sampled(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """The members that stand for a large array in a file of samples."""
    return {
        f"{name}#shape": np.array(array.shape),
        f"{name}#values": array.reshape(-1)[places(array.size, SAMPLES)],
        f"{name}#summary": summary(array),
    }


def read_members(path: Path) -> dict[str, np.ndarray]:
    """Every member of an .npz file, read in full so that a damaged one is noticed here.

    Raises:
        ReferenceFileError: if the file is truncated or no .npz.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ReferenceFileError(f"{path.name} is unreadable ({error}); copy the file again") from None
