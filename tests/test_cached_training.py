"""Training on two ranks with a feature cache: one rank killed while it stores, an entry damaged, the run resumed."""

import os
from pathlib import Path

import pytest

from tests.test_train_ds import ROOT, flags, losses, run, scenes  # noqa: F401

COUNTING_AND_KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
import train_ds
from model.sam import SamBackbone
begin, replace, stored = SamBackbone.__init__, os.replace, [0]

def counting(self, *arguments):
    begin(self, *arguments)
    self.image_encoder.register_forward_hook(count)

def count(module, inputs, output):
    with open({log!r} + os.environ["RANK"], "a") as file:
        file.write("x" * len(output))

def killing(source, target):
    stored[0] += {cache!r} in str(target)
    if {fatal} and stored[0] == {fatal} and os.environ["RANK"] == "1":
        os.truncate(source, os.path.getsize(source) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

SamBackbone.__init__, os.replace = counting, killing
train_ds.main(sys.argv[1:])
"""


def program(folder: Path, name: str, *, fatal: int) -> str:
    """train_ds.py, counting the images that are encoded, and rank 1 killed at an entry; 0 kills nothing."""
    file = folder / f"{name}.py"
    log = str(folder / f"{name}.encoded.")
    file.write_text(COUNTING_AND_KILLED.format(root=str(ROOT), log=log, cache=str(folder / "cache"), fatal=fatal))
    return str(file)


def encoded(folder: Path, name: str) -> int:
    return sum(len(path.read_text()) for path in folder.glob(f"{name}.encoded.*"))


def test_killed_damaged_and_resumed_training_equals_that_without_a_cache(scenes, tmp_path):  # noqa: F811
    """12 images in 3 steps an epoch, 3 images for validation."""
    shared = ["--epochs", "2", "--steps_per_epoch", "3", "--eval_interval", "2", "--sampling", "epoch",
              "--train_scope", "paper", "--workers", "1"]  # fmt: skip
    _, *plain = flags(scenes, tmp_path, "plain", *shared)
    run([program(tmp_path, "plain", fatal=0), *plain], ranks=2)
    assert encoded(tmp_path, "plain") == 2 * 12 + 3 * 3

    cache = tmp_path / "cache"
    _, *cached = flags(scenes, tmp_path, "cached", *shared, "--cache_features", str(cache))
    # Two steps and a validation store five entries of rank 1.
    killed = run([program(tmp_path, "killed", fatal=6), *cached], ranks=2, check=False)
    assert killed.returncode != 0
    checkpoints = tmp_path / "cached" / "checkpoints"
    assert (checkpoints / "latest").read_text() == "step_00000002"
    (leftover,) = cache.rglob(".*.tmp")
    entries = sorted(path for path in cache.glob("*/??/*") if path != leftover)
    assert 11 <= len(entries) < 15 and leftover.stat().st_size == entries[0].stat().st_size // 2
    os.utime(leftover, (0, 0))
    with open(entries[0], "r+b") as file:
        file.seek(1000)
        (byte,) = file.read(1)
        file.seek(1000)
        file.write(bytes([byte ^ 1]))

    resumed = run([program(tmp_path, "resumed", fatal=0), *cached, "--resume"], ranks=2)
    assert resumed.stdout.count(f"{entries[0]} is dropped: its checksum does not fit its content; it is made") == 1
    assert encoded(tmp_path, "resumed") == 15 - len(entries) + 1
    assert len(list(cache.glob("*/??/*"))) == 15 and not leftover.exists()
    assert losses(tmp_path, "cached") == pytest.approx(losses(tmp_path, "plain"), rel=1e-6)
    assert len(losses(tmp_path, "cached")) == 6
    hits = losses(tmp_path, "cached", "train/cache_hits")
    assert hits[:2] == [0, 0] and hits[3:].count(1.0) >= 2 and sum(hits[3:]) >= 2.75
    assert "15 images of 0.07 MB" in resumed.stdout and "1 entries dropped, 0 images not stored" in resumed.stdout
