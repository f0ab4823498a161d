"""Rows of parquet files as the hub keeps images with their masks, read one at a time.

Columns: `image` (a file's bytes, as the library datasets stores pictures), `text`, `mask` (height lists of width
booleans), `image_id`, `ann_id`. pyarrow reads them, which the extra `hub` installs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset.images import decode_image
from utils.errors import DataError, SettingsError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

NEEDED = ("image", "text", "mask", "image_id", "ann_id")


@dataclass(frozen=True)
class ParquetRow:
    """Where a row is, and what is read of all rows at once.

    Attributes:
        path: of its file; group: row group in it; place: row in the group.
        text: the query.
        record: a name of its own.
    """

    path: Path
    group: int
    place: int
    text: str
    record: str


def require_pyarrow(name: str) -> None:
    """See that parquet files can be read.

    Raises:
        SettingsError: naming what to install.
    """
    if find_spec("pyarrow") is None:
        raise SettingsError(f"{name} is in parquet files, which need pyarrow: pip install pyarrow")


def list_rows(files: Sequence[Path]) -> list[ParquetRow]:
    """The rows of some files in order; masks and images are not read.

    Raises:
        DataError: if a file is no such parquet file, or a text is empty.
    """
    import pyarrow as pa

    rows: list[ParquetRow] = []
    names: list[tuple[str, str]] = []
    for path in files:
        try:
            with _opened(path) as file:
                _refuse_other_columns(path, file)
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=["text", "image_id", "ann_id"], use_threads=False)
                    for place, said in enumerate(table.to_pylist()):
                        rows.append(ParquetRow(path, group, place, str(said["text"] or "").strip(), record=""))
                        names.append((str(said["image_id"]), str(said["ann_id"])))
        except (pa.ArrowException, OSError) as error:
            raise DataError(path, f"it cannot be read as parquet ({error}); fetch it again") from error
    for row in rows:
        if not row.text:
            raise DataError(row.path, f'row {row.place} of group {row.group} has no "text"; every row needs a query')
    return [replace(row, record=record) for row, record in zip(rows, _records(names), strict=True)]


def _records(names: Sequence[tuple[str, str]]) -> list[str]:
    """A name for each row by its image and annotation, the shortest that tells all rows apart."""
    images, both = [image for image, _ in names], [f"{image}_{annotation}" for image, annotation in names]
    numbered = [f"{name}_{number}" for number, name in enumerate(both)]
    return next(found for found in (images, both, numbered) if len(set(found)) == len(found))


def _opened(path: Path) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    # Columns are read in parts, for a group of a hundred masks is large.
    return pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)


def _refuse_other_columns(path: Path, file: pq.ParquetFile) -> None:
    lacking = [name for name in NEEDED if name not in file.schema_arrow.names]
    if lacking:
        raise DataError(
            path, f"it has no column {', '.join(lacking)}; columns must be {', '.join(NEEDED)}, as those of the hub's "
            "ReasonSeg_val and ReasonSeg_test"
        )  # fmt: skip


class ParquetReader:
    """Reads images and masks of rows; rows asked for in order are each decoded once.

    A process that reads ahead has a reader of its own, for files cannot be shared with it.
    """

    def __init__(self) -> None:
        self._where: tuple[int, Path, int] | None = None
        self._rows: Iterator[Any] = iter(())
        self._next = 0

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def read(self, row: ParquetRow) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 RGB and (H, W) boolean.

        Raises:
            DataError: if they cannot be decoded, or differ in size.
        """
        import pyarrow as pa

        try:
            batch = self._seek(row)
            content, nested = batch.column("image")[0].as_py(), batch.column("mask")[0].values
        except (pa.ArrowException, OSError, StopIteration) as error:
            raise DataError(row.path, f"row {row.record} cannot be read ({error}); fetch the file again") from error
        record = f"{row.path}, {row.record}"
        if not isinstance(content, dict) or not content.get("bytes"):
            raise DataError(record, "its image has no bytes; fetch the file again")
        image = decode_image(content["bytes"], record)
        return image, _mask(nested, image.shape[:2], record)

    def _seek(self, row: ParquetRow) -> Any:
        where = (os.getpid(), row.path, row.group)
        if where != self._where or row.place < self._next:
            file = _opened(row.path)
            self._rows = file.iter_batches(
                batch_size=1, row_groups=[row.group], columns=["image", "mask"], use_threads=False
            )
            self._where, self._next = where, 0
        batch = None
        while self._next <= row.place:
            batch = next(self._rows)
            self._next += 1
        return batch


def _mask(nested: Any, size: tuple[int, ...], record: str) -> np.ndarray:
    height, width = size
    lengths = {len(line) for line in nested} if nested is not None else set()
    if nested is None or len(nested) != height or lengths != {width}:
        found = "none" if nested is None else f"{len(nested)} lines of {', '.join(map(str, sorted(lengths)))}"
        raise DataError(record, f"its mask has {found} pixels, but the image {height} lines of {width}")
    return np.asarray(nested.flatten().to_numpy(zero_copy_only=False), dtype=bool).reshape(height, width)
