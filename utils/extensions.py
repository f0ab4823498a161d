"""Compiled extensions of torch, which DeepSpeed builds on first use, one process at a time."""

from __future__ import annotations

import os
import time
from pathlib import Path

STALE_MINUTES = 15
"""No operation of DeepSpeed's takes as long to compile."""


def stale_locks() -> list[str]:
    """A sentence for every lock of a build that is so old that its process must be gone.

    A process killed while it compiles leaves its lock, and every later one waits for it without a word.
    """
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions"
    found = []
    for lock in Path(root).glob("**/lock"):
        try:
            minutes = (time.time() - lock.stat().st_mtime) / 60
        except FileNotFoundError:  # just released
            continue
        if minutes > STALE_MINUTES:
            found.append(
                f"{lock} is {minutes:.0f} minutes old: a process that was killed while it compiled has left it, and "
                "this run may wait for it for ever. If nothing compiles on this machine, delete the file"
            )
    return found
