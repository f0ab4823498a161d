"""What a result depends on besides its settings: commit, versions, machine, command line."""

import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from utils.version import __version__

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = {
    "torch": ("torch",),
    "transformers": ("transformers",),
    "peft": ("peft",),
    "deepspeed": ("deepspeed",),
    "segment-anything": ("segment-anything",),
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
}


def describe_environment(root: str | Path = _ROOT) -> dict[str, Any]:
    """Describe the code at `root`, the packages and the machine, ready for JSON; what is unknown is None."""
    versions = {name: _version(*distributions) for name, distributions in _PACKAGES.items()}
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": [sys.executable, *sys.argv],
        "git": git_state(root),
        "versions": {"anchorseg": __version__, "python": platform.python_version(), **versions},
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "devices": device_names(),
        "cuda": torch.version.cuda,
    }


def git_state(root: str | Path = _ROOT) -> dict[str, Any]:
    """Commit of the repository whose top folder is `root`, and whether files there differ from it.

    Returns:
        ``{"commit": str | None, "dirty": bool | None}``; None without git, or where `root` is
        not the top of a repository.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != Path(root).resolve():
        return {"commit": None, "dirty": None}
    status = _git(root, "status", "--porcelain")
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def device_names() -> list[str]:
    """Names of the visible GPUs, or the processor's architecture without any."""
    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [f"cpu ({platform.machine()})"]


def _git(root: str | Path, *arguments: str) -> str | None:
    try:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(*distributions: str) -> str | None:
    """Version of the first distribution that is installed."""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None
