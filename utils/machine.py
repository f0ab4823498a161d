"""What a machine lacks for a run, said before hours are spent."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from utils.errors import SettingsError

SHARED_MEMORY = Path("/dev/shm")


def refuse_without_gpu(*, wanted: bool) -> None:
    """Refuse to run on the CPU in silence.

    Raises:
        SettingsError: if a GPU is wanted and torch sees none.
    """
    if not wanted or torch.cuda.is_available():
        return
    built = torch.version.cuda
    why = (
        f"it is built for CUDA {built}, so the driver may be too old (nvidia-smi shows it)"
        if built
        else ("it is built for the CPU alone; install the CUDA build of torch")
    )
    raise SettingsError(f"torch {torch.__version__} sees no GPU: {why}. To run on the CPU all the same: --device cpu")


def refuse_without_shared_memory(*, workers: int, needed: int) -> None:
    """Refuse data loading processes that would end in a bus error; they hand over batches through shared memory.

    Args:
        workers: data loading processes of each rank.
        needed: bytes of a rank.

    Raises:
        SettingsError: if less is free.
    """
    if not workers or not SHARED_MEMORY.is_dir():
        return
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or "1")
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < ranks * needed:
        raise SettingsError(
            f"{SHARED_MEMORY} has {free / 1e9:.2f} GB free, but data loading needs about {ranks * needed / 1e9:.0f}; "
            "enlarge it (docker run --shm-size=16g), or pass --workers 0"
        )


def chosen_device(name: str) -> str:
    """A device by its name; `auto` is a GPU where there is one.

    Raises:
        SettingsError: if it is no device, or not here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(f"--device {name} is no device; give cuda, cuda:1, cpu or auto") from None
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"--device {name} is not supported; give cuda, cuda:1, cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"--device {name} is not here: torch {torch.__version__} sees {torch.cuda.device_count()} GPU(s); "
            "check nvidia-smi and the driver, or use --device cpu"
        )
    return name
