"""Locks of compilations: one that nobody holds is removed, any other named."""

import os
import subprocess
import sys
import time

import pytest

from utils.extensions import STALE_MINUTES, settle_locks


def make_lock(folder, minutes):
    lock = folder / "py311_cpu" / "cpu_adam" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    then = time.time() - 60 * minutes
    os.utime(lock, (then, then))
    return lock


@pytest.mark.parametrize("place", ["TORCH_EXTENSIONS_DIR", "XDG_CACHE_HOME", "HOME"])
def test_an_old_lock_is_removed_wherever_torch_builds(tmp_path, monkeypatch, place):
    for name in ("TORCH_EXTENSIONS_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(place, str(tmp_path))
    below = {"TORCH_EXTENSIONS_DIR": "", "XDG_CACHE_HOME": "torch_extensions", "HOME": ".cache/torch_extensions"}[place]
    assert settle_locks() == []
    lock = make_lock(tmp_path / below, STALE_MINUTES + 45)
    (sentence,) = settle_locks()
    assert sentence == f"{lock} was 60 minutes old: left by a process that was killed, and is removed"
    assert not lock.exists() and settle_locks() == []


@pytest.mark.parametrize("minutes", [0, 5, STALE_MINUTES - 1])
def test_a_fresh_lock_is_named_and_left(tmp_path, monkeypatch, minutes):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    lock = make_lock(tmp_path, minutes)
    (sentence,) = settle_locks()
    assert f"{lock} is {minutes} minutes old" in sentence and "delete the file" in sentence and lock.exists()


def test_a_lock_of_a_process_at_work_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    lock = make_lock(tmp_path, 600)
    with subprocess.Popen([sys.executable, "-c", "input()"], cwd=lock.parent, stdin=subprocess.PIPE) as compiler:
        while not settle_locks():
            time.sleep(0.01)
        assert lock.exists()
        compiler.communicate(b"\n")
