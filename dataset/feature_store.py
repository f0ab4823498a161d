"""Feature store: what SAM's encoder gave for an image, on disk, for every run, rank and worker that shares the folder.

FOLDER/ab/ab12... holds the features of the picture with the key ab12...: 32 bytes of SHA-256, then (C, G, G) values.
The same picture under two names is one entry. An entry appears whole or not at all, and is checked when it is read.
Reading changes nothing, so that data loading processes may do it.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.files import write_bytes

_CHECKSUM = 32
_LEFTOVER_SECONDS = 3600.0
"""Age from which a temporary file is nobody's: one is written in less than a second."""


class DamagedEntryError(Exception):
    """An entry that cannot be trusted; the message says why."""


def image_key(image: np.ndarray) -> str:
    """Key of a decoded image: a digest of its shape and its pixels."""
    digest = hashlib.sha256(str((image.shape, image.dtype.str)).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class FeatureStore:
    """Features of one encoder, in one type.

    Attributes:
        folder: of its entries; its name is a digest of all that the features depend on beside the image.
        shape: (C, G, G) of the features.
        dtype: their type.
    """

    folder: Path
    shape: tuple[int, int, int]
    dtype: torch.dtype

    @property
    def entry_bytes(self) -> int:
        """Size of an entry."""
        channels, height, width = self.shape
        return _CHECKSUM + channels * height * width * self.dtype.itemsize

    def path(self, key: str) -> Path:
        """File of a key."""
        return self.folder / key[:2] / key

    def find(self, key: str) -> Tensor | None:
        """Features (C, G, G), or None where there are none that can be trusted."""
        try:
            return self.read(key)
        except DamagedEntryError:
            return None

    def read(self, key: str) -> Tensor | None:
        """Features (C, G, G), or None where there are none.

        Raises:
            DamagedEntryError: if the entry cannot be read, has another size, or its checksum does not fit.
        """
        path = self.path(key)
        if os.path.lexists(path) and not path.is_file():  # of a pipe, a reader would wait
            raise DamagedEntryError("it is no file")
        try:
            content = bytearray(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DamagedEntryError(f"it cannot be read ({error.strerror})") from None
        if len(content) != self.entry_bytes:
            raise DamagedEntryError(f"it has {len(content)} bytes instead of {self.entry_bytes}")
        values = memoryview(content)[_CHECKSUM:]
        if self._checksum(key, values) != content[:_CHECKSUM]:
            raise DamagedEntryError("its checksum does not fit its content")
        return torch.frombuffer(values, dtype=self.dtype).view(self.shape)

    def write(self, key: str, features: Tensor) -> int:
        """Store features (C, G, G) unless they are there; the bytes that were added.

        Raises:
            OSError: if they cannot be written.
        """
        path = self.path(key)
        if path.exists():
            return 0
        assert tuple(features.shape) == self.shape and features.dtype == self.dtype, (features.shape, features.dtype)
        values = features.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not forced to the disk: what a power cut damages is found by its checksum.
        write_bytes(path, self._checksum(key, values) + values, durable=False)
        return self.entry_bytes

    def drop(self, key: str) -> int:
        """Delete an entry; the bytes that were freed.

        Raises:
            OSError: if it cannot be deleted.
        """
        path = self.path(key)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:  # another process was faster
            return 0
        return size

    def _checksum(self, key: str, values: bytes | memoryview) -> bytes:
        # With its name, so that an entry that was moved or copied to another one does not pass.
        digest = hashlib.sha256(f"{self.folder.name}/{key}".encode())
        digest.update(values)
        return digest.digest()


@dataclass(frozen=True)
class Usage:
    """What a folder of stores holds: images of one store, and bytes of everything."""

    images: int
    total_bytes: int


def measure(root: Path, store: FeatureStore) -> Usage:
    """Count the entries of a store, and the bytes of all files in the folder that holds it and others."""
    images = total = 0
    for parent, _, names in os.walk(root):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:  # another run's temporary file
                continue
            images += not name.startswith(".") and Path(parent).parent == store.folder
    return Usage(images, total)


def remove_leftovers(root: Path) -> None:
    """Delete temporary files that killed processes left, but none that may still be written."""
    for path in root.glob("*/??/.*.tmp"):
        try:
            if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                path.unlink()
        except OSError:  # gone, or another user's
            continue
