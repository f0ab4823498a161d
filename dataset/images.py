"""Images from disk as RGB arrays."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

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
