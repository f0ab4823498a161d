"""Pictures on disk: written whole, or a sentence."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from utils.errors import OutputError
from utils.files import write_bytes

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff")


def check_picture_path(path: str | Path) -> Path:
    """See, before work is done for it, that a picture can be written to a path; its folder is made.

    Raises:
        OutputError: if it cannot.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"the picture {path} needs one of the suffixes {', '.join(SUFFIXES)}")
    try:
        if path.is_dir():
            raise OutputError(f"the picture {path} is a folder; give a file in it, such as {path / 'picture.png'}")
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.tmp")
        probe.touch()
        probe.unlink()
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"the picture {path} cannot be written ({error.strerror}); give another path") from error
    return path


def save_picture(path: str | Path, picture: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB in the format of the path's suffix.

    Raises:
        OutputError: if it cannot be written; nothing, or what was there, is left.
    """
    path = check_picture_path(path)
    encoded, data = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise OutputError(f"the picture {path} of {picture.shape[0]} x {picture.shape[1]} pixels cannot be encoded")
    try:
        write_bytes(path, data.tobytes())
    except OSError as error:
        raise OutputError(
            f"the picture {path} cannot be written ({error.strerror}); make room, or give another path"
        ) from error
