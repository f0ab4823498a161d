"""Images from disk: photographs as RGB arrays, label maps as class numbers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.errors import DataError


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB, its EXIF rotation applied.

    Raises:
        DataError: if the file is missing, empty or cannot be decoded.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(str(path), "the image file does not exist")
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise DataError(str(path), "the file is not an image that OpenCV can decode; fetch it again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_label_map(path: str | Path) -> np.ndarray:
    """Read a label map as (H, W) uint8 class numbers: of a palette image its indices, not its colours.

    Raises:
        DataError: if the file is missing, empty, cannot be decoded, or has more than one byte a pixel.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(path, "the label map does not exist")
    try:
        with Image.open(path) as label:
            label.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(path, f"the label map cannot be decoded ({error}); fetch it again") from error
    if label.mode not in ("1", "L", "P"):
        raise DataError(
            path,
            f"its pixels are {label.mode}, but a label map holds one class number of 0 to 255 a pixel, in grey or by a "
            "palette; fetch it again, or write it so",
        )
    return np.asarray(label if label.mode == "P" else label.convert("L"))
