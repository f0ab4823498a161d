"""Files of a checkpoint: plain data that is checked before DeepSpeed opens it, and checksums beside it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from utils.errors import CheckpointError
from utils.files import file_digest, read_json, refuse_irregular, write_json

CHECKSUMS = "checksums.json"


def _zero_stage(kind: type[ZeroStageEnum], name: str) -> ZeroStageEnum:
    """A member of DeepSpeed's enumeration, which some releases of python 3.11 pickle as `getattr(class, name)`."""
    if kind is not ZeroStageEnum:
        raise pickle.UnpicklingError(f"GLOBAL getattr of {kind!r:.60} is not allowed")
    return ZeroStageEnum[name]


_PLAIN = [
    LossScaler,
    DynamicLossScaler,
    ZeroStageEnum,
    fragment_address,
    (_zero_stage, "builtins.getattr"),
    (_zero_stage, "__builtin__.getattr"),
]
"""What DeepSpeed's files hold besides tensors and plain data: records without code of their own."""


@contextmanager
def plain_data_only() -> Iterator[None]:
    """Let every `torch.load` inside, DeepSpeed's own too, read tensors and plain data alone, and run nothing."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        with torch.serialization.safe_globals(_PLAIN):
            yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})


def load_plain(file: Path) -> dict[str, Any]:
    """A file of a checkpoint, its tensors not read before they are used.

    Raises:
        CheckpointError: if it is missing, damaged, or holds more than tensors and plain data.
    """
    try:
        refuse_irregular(file, fail=_damaged)
        with plain_data_only():
            content = torch.load(file, map_location="cpu", mmap=True)
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{file} does not exist") from None
    except pickle.UnpicklingError as error:
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line or "global" in line), "")
        raise _damaged(file, f"it holds more than tensors and plain data, or is damaged ({reason:.120})") from None
    except Exception as error:  # damaged bytes raise nearly anything
        raise _damaged(file, f"it is damaged ({type(error).__name__}: {str(error).splitlines()[0]:.120})") from None
    if not isinstance(content, dict):
        raise _damaged(file, "it does not hold what DeepSpeed writes")
    return content


def _damaged(file: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{file}: {reason}; it is not opened")


def write_checksums(folder: Path) -> None:
    """Write size and digest of every file of a checkpoint folder beside them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    write_json(
        folder / CHECKSUMS,
        {str(path.relative_to(folder)): {"bytes": path.stat().st_size, "blake2b": file_digest(path)} for path in files},
    )


def check(folder: Path) -> None:
    """Compare the files of a checkpoint folder with their checksums, and see that each is plain data.

    A checkpoint of an earlier version has no checksums; its files are then only opened.

    Raises:
        CheckpointError: naming the first file that is missing, damaged or no plain data.
    """
    for name, wanted in _wanted(folder).items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing")
        if path.stat().st_size != wanted["bytes"]:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes instead of {wanted['bytes']}")
        if file_digest(path) != wanted["blake2b"]:
            raise CheckpointError(f"{path} is damaged: its checksum does not fit")
    for path in sorted(folder.rglob("*.pt")):
        load_plain(path)


def _wanted(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / CHECKSUMS
    if not os.path.lexists(path):
        return {}
    wanted: dict[str, dict[str, Any]] = read_json(path, fail=_damaged, kind=dict)
    for name, entry in wanted.items():
        if ".." in Path(name).parts or Path(name).is_absolute() or not isinstance(entry, dict):
            raise _damaged(path, f"its entry {name!r:.60} is wrong")
        if not isinstance(entry.get("bytes"), int) or not isinstance(entry.get("blake2b"), str):
            raise _damaged(path, f"its entry {name!r:.60} is wrong")
    return wanted
