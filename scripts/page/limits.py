"""What a visitor may send: images and questions, checked before any work is done for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.images import image_size, read_image
from utils.errors import DataError, InputError

MAP_PIXELS = 4_000_000
"""Most pixels of an image whose token maps are shown: each map is a float for every pixel, eight and more a target."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of what one visitor sends.

    Attributes:
        upload_mb: largest file, in MB of 10^6 bytes.
        pixels: most pixels of an image.
        question: longest question in characters.
    """

    upload_mb: float = 20
    pixels: int = 16_000_000
    question: int = 500

    @property
    def upload_bytes(self) -> int:
        """Largest file in bytes."""
        return int(self.upload_mb * 1_000_000)

    def image(self, path: str | None) -> np.ndarray:
        """Read an uploaded file as (H, W, 3) uint8 RGB; its size is read from its header first.

        Raises:
            InputError: if there is none, or it is no image or too large; the host's path is not in the message.
        """
        if path is None:
            raise InputError("There is no image yet: upload one, or choose an example.")
        try:
            size = Path(path).stat().st_size
        except OSError:
            raise InputError("The image is no longer kept here: upload it again.") from None
        if size > self.upload_bytes:
            raise InputError(f"The file has {size / 1e6:.1f} MB, {self.upload_mb:g} are allowed: give a smaller one.")
        try:
            height, width = image_size(path)
            if height * width > self.pixels:
                raise InputError(
                    f"The image has {width} x {height} pixels, {self.pixels / 1e6:g} million are allowed: "
                    "make it smaller."
                )
            return read_image(path)
        except DataError as error:
            raise InputError(f"The image cannot be read: {error.reason}.") from None

    def asked(self, question: object) -> str:
        """A question as it is sent to the model.

        Raises:
            InputError: if it is empty or too long.
        """
        text = question.strip() if isinstance(question, str) else ""
        if not text:
            raise InputError('The question is empty: ask for something, such as "the red cup".')
        if len(text) > self.question:
            raise InputError(f"The question has {len(text)} characters, {self.question} are allowed: make it shorter.")
        return text
