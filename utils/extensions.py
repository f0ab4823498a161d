"""Compiled extensions of torch, which DeepSpeed builds on first use, one process at a time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

STALE_MINUTES = 15
"""No operation of DeepSpeed's takes as long to compile."""


def settle_locks() -> list[str]:
    """A sentence for every lock of a build; one that nobody can still hold is removed.

    A process killed while it compiles leaves its lock, and every later one would wait for it without a word. A lock is
    nobody's if it is older than any build takes and no process of this machine works in its folder.
    """
    found = []
    for lock in sorted(_root().glob("**/lock")):
        try:
            minutes = (time.time() - lock.stat().st_mtime) / 60
        except FileNotFoundError:  # just released
            continue
        if minutes > STALE_MINUTES and not _in_use(lock.parent):
            lock.unlink(missing_ok=True)
            found.append(f"{lock} was {minutes:.0f} minutes old: left by a process that was killed, and is removed")
        else:
            found.append(
                f"{lock} is {minutes:.0f} minutes old: another process seems to compile there, and this run waits for "
                "it. If nothing compiles on any machine, delete the file"
            )
    return found


def _root() -> Path:
    """Where torch builds extensions."""
    chosen = os.environ.get("TORCH_EXTENSIONS_DIR")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(cache) / "torch_extensions"


def _in_use(folder: Path) -> bool:
    """Whether a process of this machine works in a folder, as the compiler's does."""
    for process in psutil.process_iter():
        try:
            if folder in (where := Path(process.cwd()), *where.parents):
                return True
        except (psutil.Error, OSError):  # gone, or another user's
            continue
    return False
