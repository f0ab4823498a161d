"""JSON files of any size, item by item, in little memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ijson
from tqdm import tqdm

from utils.errors import DataError


class _Progress:
    """A file that moves a bar as it is read."""

    def __init__(self, file: BinaryIO, bar: tqdm) -> None:
        self._file = file
        self._bar = bar

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._bar.update(len(data))
        return data


def stream(path: Path, prefix: str) -> Iterator[Any]:
    """Items below `prefix` (ijson's notation: "item" for a list's entries, "images.item" for those of a key).

    Shows a progress bar for files that take seconds.

    Raises:
        DataError: if the file is empty or no valid JSON.
    """
    size = path.stat().st_size
    if size == 0:
        raise DataError(path, "the file is empty; fetch it again")
    bar = tqdm(total=size, unit="B", unit_scale=True, desc=f"{path.name} {prefix}", delay=2, leave=False)
    with path.open("rb") as file, bar:
        try:
            yield from ijson.items(_Progress(file, bar), prefix, use_float=True, buf_size=1 << 20)
        except ijson.JSONError as error:
            raise DataError(path, f"this is not valid JSON ({str(error).splitlines()[0]}); fetch it again") from error
