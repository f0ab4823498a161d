"""Numbers of the published implementation, from the full fixtures or from the digest in this folder.

Arrays go by "file/name", for example "losses/dice_loss.a.out". The digest keeps small arrays whole and of large ones
4096 values at fixed places with minimum, maximum and sums; one comparison serves both.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity import rules

FOLDER = Path(__file__).parent
DIGEST = FOLDER / "digest.npz"
ANNOTATION = FOLDER / "annotation.json"
SAMPLES = 4096


def fixture_folder() -> Path | None:
    """Folder of the full fixtures: below ANCHORSEG_SHARED or, without it, below the sibling folder `shared`."""
    shared = os.environ.get("ANCHORSEG_SHARED") or FOLDER.parents[2] / "shared"
    folder = Path(shared) / "fixtures" / "parity"
    return folder if folder.is_dir() else None


def sampled_places(size: int) -> np.ndarray:
    """Flat indices of the values that the digest keeps of an array of `size` values."""
    return np.arange(SAMPLES, dtype=np.int64) * 2_654_435_761 % size


def summary(array: np.ndarray) -> np.ndarray:
    """Minimum, maximum, sum and sum of magnitudes."""
    values = array.astype(np.float64)
    return np.array([values.min(), values.max(), values.sum(), np.abs(values).sum()])


def _to_numpy(computed: Any) -> np.ndarray:
    if hasattr(computed, "detach"):
        computed = computed.detach().cpu().float() if computed.is_floating_point() else computed.detach().cpu()
        return computed.numpy()
    return np.asarray(computed)


@cache
def _archive(path: Path) -> Any:
    return np.load(path, allow_pickle=False)


class Reference:
    """One source of the numbers: the full fixtures in `folder`, or the digest if it is None."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def _full(self, name: str) -> np.ndarray | None:
        if self.folder is None:
            archive = _archive(DIGEST)
            return archive.get(name)
        file, array = name.split("/", 1)
        archive = _archive(self.folder / f"{file}.npz")
        return archive[array]

    def names(self, file: str) -> list[str]:
        """Names of all arrays of one file, sampled ones included."""
        if self.folder is not None:
            return [f"{file}/{array}" for array in _archive(self.folder / f"{file}.npz").files]
        return sorted({key.split("#")[0] for key in _archive(DIGEST).files if key.startswith(f"{file}/")})

    def load(self, name: str) -> np.ndarray:
        """A whole array: an input, or an output that was small enough to keep; KeyError if only a sample exists."""
        stored = self._full(name)
        if stored is not None:
            return stored
        if name in rules.RULES:
            computed = rules.RULES[name]()
            self.assert_matches(name, computed, 1e-6)
            return computed
        raise KeyError(f"The digest holds no whole array {name}.")

    def assert_matches(self, name: str, computed: Any, tolerance: float = 1e-4) -> float:
        """Compare with the published array; whole numbers and booleans must be equal.

        Args:
            name: "file/array".
            computed: tensor or array of the same shape.
            tolerance: greatest allowed error as a share of the array's largest magnitude.

        Returns:
            Worst error as a share of the array's largest magnitude.
        """
        found = _to_numpy(computed)
        stored = self._full(name)
        error = _error(found, stored, name) if stored is not None else _sampled_error(found, name)
        exact = (stored if stored is not None else _archive(DIGEST)[f"{name}#values"]).dtype.kind in "bui"
        allowed = 0.0 if exact else tolerance
        assert error <= allowed, f"{name}: error {error:.2e} of the maximum, allowed {allowed:.0e}"
        return error


def _check_shape(found: np.ndarray, shape: tuple[int, ...], name: str) -> None:
    assert found.shape == shape, f"{name}: shape {found.shape}, expected {shape}"


def _largest(differences: np.ndarray) -> float:
    """Largest magnitude, infinite if a value is no number."""
    magnitudes = np.where(np.isnan(differences), np.inf, np.abs(differences))
    return float(magnitudes.max(initial=0.0))


def _error(found: np.ndarray, expected: np.ndarray, name: str) -> float:
    _check_shape(found, expected.shape, name)
    wanted = expected.astype(np.float64)
    return _largest(found.astype(np.float64) - wanted) / (_largest(wanted) or 1.0)


def _sampled_error(found: np.ndarray, name: str) -> float:
    archive = _archive(DIGEST)
    _check_shape(found, tuple(archive[f"{name}#shape"].tolist()), name)
    wanted, limits = archive[f"{name}#values"].astype(np.float64), archive[f"{name}#summary"]
    scale = _largest(limits[:2]) or 1.0
    values = _largest(found.reshape(-1)[sampled_places(found.size)].astype(np.float64) - wanted) / scale
    found_limits = summary(found)
    extremes = _largest(found_limits[:2] - limits[:2]) / scale
    sums = _largest(found_limits[2:] - limits[2:]) / (limits[3] or 1.0)
    return max(values, extremes, sums)


def default() -> Reference:
    """The full fixtures where they lie beside the repository, else the digest."""
    return Reference(fixture_folder())


def assert_matches(name: str, computed: Any, tolerance: float = 1e-4) -> float:
    """`Reference.assert_matches` of the default source."""
    return default().assert_matches(name, computed, tolerance)


def load(name: str) -> np.ndarray:
    """`Reference.load` of the default source."""
    return default().load(name)
