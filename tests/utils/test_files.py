"""Atomic files: whole or absent, and strict JSON."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from utils.files import to_json, write_json, write_text


@dataclass(frozen=True)
class _Point:
    x: int
    path: Path


def test_write_text_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "one")
    write_text(tmp_path / "a.txt", "zwö")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "zwö"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_failure_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a.txt", "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_write_json_holds_what_strict_json_can(tmp_path: Path) -> None:
    values = {
        "point": _Point(1, Path("a/b")),
        "tuple": (1, 2.5, True, None),
        "numpy": [np.float32(0.5), np.int64(3), np.arange(2)],
        "loss": [float("nan"), float("-inf")],
    }
    write_json(tmp_path / "a.json", values)
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "point": {"x": 1, "path": "a/b"},
        "tuple": [1, 2.5, True, None],
        "numpy": [0.5, 3, [0, 1]],
        "loss": ["nan", "-inf"],
    }


def test_what_json_cannot_hold_is_named() -> None:
    with pytest.raises(TypeError, match="type set"):
        to_json({"a": {1, 2}})
