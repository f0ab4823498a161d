"""One file of published numbers: its arrays, what became of each, and the comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tests.parity import rules
from tests.parity.samples import ReferenceFileError, places, read_members, summary

TOLERANCE = 1e-4
"""Greatest allowed error as a share of an array's largest magnitude."""

Status = Literal["pass", "FAIL", "input", "note"]


@dataclass(frozen=True)
class Row:
    """What became of one array: compared (pass or FAIL), used as an input, or a remark that nothing compares."""

    file: str
    array: str
    status: Status
    error: float | None = None
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether this row counts against the file."""
        return self.status == "FAIL"


def to_numpy(computed: Any) -> np.ndarray:
    """A tensor of any type and device, or anything numpy takes, as an array."""
    if isinstance(computed, Tensor):
        computed = computed.detach().cpu()
        return (computed.float() if computed.dtype == torch.bfloat16 else computed).numpy()
    return np.asarray(computed)


def _largest(differences: np.ndarray) -> float:
    """Largest magnitude, infinite if a value is no number."""
    magnitudes = np.where(np.isnan(differences), np.inf, np.abs(differences))
    return float(magnitudes.max(initial=0.0))


class Fixture:
    """One .npz file under examination.

    `input` hands out an array to compute with, `check` compares one; `finish` names whatever neither touched.

    Args:
        path: the file.

    Raises:
        ReferenceFileError: if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.name
        self._members = read_members(path)
        self.names = tuple(dict.fromkeys(name.split("#")[0] for name in self._members))
        self._inputs: set[str] = set()
        self._rows: list[Row] = []

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def input(self, name: str) -> np.ndarray:
        """An array to compute with.

        Raises:
            ReferenceFileError: if it is absent, or a sample that no rule completes.
        """
        self._inputs.add(name)
        if name in self._members:
            return self._members[name]
        if name not in self:
            raise ReferenceFileError(f"array {name} is missing, and the others follow from it; copy the file again")
        rule = rules.RULES.get(f"{self.path.stem}/{name}")
        if rule is None:
            raise ReferenceFileError(f"array {name} is a sample, but the others follow from all of it")
        computed = rule()
        self.check(name, computed, tolerance=1e-6)
        return computed

    def tensor(self, name: str) -> Tensor:
        """`input` as a tensor of its own."""
        return torch.from_numpy(np.array(self.input(name)))

    def check(
        self,
        name: str,
        computed: Any,
        *,
        label: str = "",
        tolerance: float = TOLERANCE,
        scale: float | None = None,
        where: np.ndarray | None = None,
        optional: bool = False,
        note: str = "",
    ) -> None:
        """Compare one array; whole numbers and booleans must be equal.

        Args:
            name: of the array; without it in the file the row fails, unless `optional`.
            computed: tensor or array of the same shape.
            label: added to the name in the row.
            tolerance: greatest allowed error as a share of the array's largest magnitude.
            scale: magnitude to compare with instead.
            where: boolean mask over leading axes: places to compare.
            optional: files of this kind need not hold the array.
            note: for the row.
        """
        shown = f"{name} {label}".strip()
        if name not in self:
            if not optional:
                self.fail(shown, "missing; copy the file again")
            return
        found = to_numpy(computed)
        shape, is_exact = self._description(name)
        if found.shape != shape:
            self.fail(shown, f"shape {found.shape} instead of {shape}")
            return
        error = float(np.nan_to_num(self._error(name, found, where, scale), nan=np.inf))
        allowed = 0.0 if is_exact and scale is None else tolerance
        self.add(shown, error <= allowed, error, note)

    def agrees(self, name: str, computed: Any) -> bool:
        """Whether an array of the file equals a computed one; nothing is recorded."""
        found = to_numpy(computed)
        return name in self and found.shape == self._description(name)[0] and self._error(name, found, None, None) == 0

    def add(self, array: str, passed: bool, error: float | None = None, note: str = "") -> None:
        """Record a comparison made elsewhere."""
        self._rows.append(Row(self.file, array, "pass" if passed else "FAIL", error, note))

    def fail(self, array: str, note: str) -> None:
        """Record something that stops a comparison."""
        self.add(array, False, note=note)

    def remark(self, array: str, note: str) -> None:
        """Record an array that has no counterpart here, and why."""
        self._rows.append(Row(self.file, array, "note", note=note))

    def finish(self, *, stopped: bool = False) -> list[Row]:
        """All rows: comparisons, inputs not compared as well, and every array that nothing knew as failing.

        Args:
            stopped: the check ended early, so that such arrays were not reached.
        """
        reason = "not reached" if stopped else "unknown array"
        touched = {row.array.split(" ")[0] for row in self._rows}
        rest = [name for name in self.names if name not in touched]
        inputs = [Row(self.file, name, "input") for name in rest if name in self._inputs]
        unknown = [Row(self.file, name, "FAIL", note=reason) for name in rest if name not in self._inputs]
        return self._rows + inputs + unknown

    def _description(self, name: str) -> tuple[tuple[int, ...], bool]:
        whole = name in self._members
        values = self._members[name if whole else f"{name}#values"]
        shape = values.shape if whole else tuple(self._members[f"{name}#shape"].tolist())
        return shape, values.dtype.kind in "bui"

    def _error(self, name: str, found: np.ndarray, where: np.ndarray | None, scale: float | None) -> float:
        if name not in self._members:
            return self._sampled_error(name, found, where, scale)
        wanted, found = self._members[name].astype(np.float64), found.astype(np.float64)
        if where is not None:
            wanted, found = wanted[where], found[where]
        return _largest(found - wanted) / (scale or _largest(wanted) or 1.0)

    def _sampled_error(self, name: str, found: np.ndarray, where: np.ndarray | None, scale: float | None) -> float:
        wanted, limits = self._members[f"{name}#values"].astype(np.float64), self._members[f"{name}#summary"]
        scale = scale or _largest(limits[:2]) or 1.0
        at = places(found.size, len(wanted))
        differences = found.reshape(-1)[at].astype(np.float64) - wanted
        if where is not None:
            kept = np.broadcast_to(where.reshape(where.shape + (1,) * (found.ndim - where.ndim)), found.shape)
            return _largest(differences[kept.reshape(-1)[at]]) / scale
        found_limits = summary(found)
        extremes = _largest(found_limits[:2] - limits[:2]) / scale
        sums = _largest(found_limits[2:] - limits[2:]) / (limits[3] or 1.0)
        return max(_largest(differences) / scale, extremes, sums)
