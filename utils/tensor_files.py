"""Weight files as lazy tables of tensors: safetensors or torch's own format, sharded or not.

Nothing that executes a pickle: torch files are opened with `weights_only`.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from utils.errors import CheckpointError
from utils.files import read_json, refuse_irregular
from utils.json_text import foreign_content
from utils.shown import shown

SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
INDEX_FILES = tuple(f"{name}.index.json" for name in SINGLE_FILES)


class TensorFiles(Mapping[str, Tensor]):
    """Tensors by name, read when asked for.

    Args:
        path: a weight file (`.safetensors`, `.bin`, `.pth`), or a folder with one of `model.safetensors`,
            `pytorch_model.bin`, or the index of either's shards.

    Attributes:
        files: the weight files.
        shards: file name -> names of its tensors, in the file's order.

    Raises:
        CheckpointError: if the path holds no weights, an index names an absent shard, or a file is cut short or holds
            anything but tensors.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.files = weight_files(self.path)
        self._tables: dict[str, Any] = {file.name: _open(file) for file in self.files}
        self.shards = {name: list(table.keys()) for name, table in self._tables.items()}
        self._file_of = {name: file for file, names in self.shards.items() for name in names}
        self._check_index()

    def _check_index(self) -> None:
        index = index_file(self.path)
        named = _weight_map(index) if index else {}
        absent = sorted(set(named) - set(self._file_of))
        if absent:
            raise CheckpointError(
                f"{index} names {len(absent)} tensor(s) that its files do not hold: {', '.join(absent[:5])}; "
                "fetch the folder again"
            )

    def __getitem__(self, name: str) -> Tensor:
        table = self._tables[self._file_of[name]]
        return table.get_tensor(name) if hasattr(table, "get_tensor") else table[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def shape(self, name: str) -> torch.Size:
        """Shape of a tensor, without reading its values."""
        table = self._tables[self._file_of[name]]
        return torch.Size(table.get_slice(name).get_shape()) if hasattr(table, "get_slice") else table[name].shape

    def is_floating_point(self, name: str) -> bool:
        """Whether a tensor holds floating point numbers, without reading its values."""
        table = self._tables[self._file_of[name]]
        if hasattr(table, "get_slice"):
            return str(table.get_slice(name).get_dtype()).startswith(("F", "BF"))
        return bool(table[name].is_floating_point())


def index_file(folder: Path) -> Path | None:
    """The index of a sharded folder, or None."""
    return next((folder / name for name in INDEX_FILES if (folder / name).is_file()), None)


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights of a folder, shards in the order of their names.

    Raises:
        CheckpointError: if there are none, or one that the index names is absent.
    """
    if path.is_file():
        return [path]
    index = index_file(path)
    if index is not None:
        files = [path / name for name in sorted(set(_weight_map(index).values()))]
    else:
        files = [path / name for name in SINGLE_FILES if (path / name).is_file()][:1]
    if not files:
        allowed = ", ".join(SINGLE_FILES + INDEX_FILES)
        raise CheckpointError(f"{path} holds no weights; expected one of {allowed}")
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{index} names {file.name}, which is not there; fetch the folder again")
    return files


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> name of the file beside the index that holds it."""
    table = read_json(index, fail=_damaged, kind=dict).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise _damaged(index, "it has no weight_map, which names the file of each tensor")
    for name, file in table.items():
        if not isinstance(file, str) or Path(file).name != file or file in ("", ".", ".."):
            raise _damaged(index, f"its weight_map puts {shown(name)} into {shown(file)}, which is no name of a file")
    return table


def _damaged(file: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{file}: {reason}; fetch it again")


def _open(file: Path) -> Any:
    refuse_irregular(file, fail=_damaged)
    with file.open("rb") as opened:
        other = foreign_content(opened.read(100))
    if other and other not in ("a zip archive", "a pickle"):
        raise _damaged(file, f"it holds no weights but {other}")
    if file.suffix == ".safetensors":
        try:
            return safe_open(file, framework="pt")
        except SafetensorError as error:
            raise CheckpointError(
                f"{file} cannot be read ({error}); it is cut short or damaged: fetch it again"
            ) from None
    try:
        table = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise CheckpointError(
            f"{file} is refused: it holds objects other than tensors{f', such as {found[1]},' if found else ''} or is "
            "damaged; nothing in it was executed. Fetch it again from its source, as safetensors where offered"
        ) from None
    except Exception as error:  # damaged bytes raise nearly anything
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise CheckpointError(f"{file} cannot be read ({reason}); it is cut short or damaged: fetch it again") from None
    if not isinstance(table, dict) or not all(isinstance(value, Tensor) for value in table.values()):
        raise CheckpointError(f"{file} is not a table of tensors by name; give the published weight file itself")
    return table
