"""Sealed files: plain data after its own digest, so that a damaged file is never taken for a whole one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from utils.files import write_bytes


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).hexdigest().encode()


def write_sealed(path: Path, content: Any) -> None:
    """Write what JSON can hold, whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()
    write_bytes(path, _digest(text) + b"\n" + text)


def read_sealed(path: Path) -> Any:
    """What `write_sealed` wrote, or None where there is no such file or it is damaged."""
    if not path.is_file():  # no folder, and no pipe, whose reader would wait
        return None
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return json.loads(text) if digest == _digest(text) else None
