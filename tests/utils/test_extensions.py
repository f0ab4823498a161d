"""Locks of compilations: old ones are named, fresh ones are not."""

import os
import time

from utils.extensions import STALE_MINUTES, stale_locks


def test_only_old_locks_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert stale_locks() == []
    fresh, old = (tmp_path / "py311_cpu" / name / "lock" for name in ("cpu_adam", "async_io"))
    for lock in (fresh, old):
        lock.parent.mkdir(parents=True)
        lock.touch()
    hour_ago = time.time() - 60 * (STALE_MINUTES + 45)
    os.utime(old, (hour_ago, hour_ago))
    (sentence,) = stale_locks()
    assert str(old) in sentence and "60 minutes old" in sentence and "delete the file" in sentence
