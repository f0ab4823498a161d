"""Images from disk: photographs as RGB arrays, label maps as class numbers, masks of one object."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from utils.errors import DataError
from utils.files import read_bytes, refuse_irregular
from utils.json_text import foreign_content

if TYPE_CHECKING:
    from PIL import Image

_SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""

_DAMAGED = (OSError, SyntaxError, ValueError, KeyError, IndexError, TypeError, struct.error, EOFError)
"""What Pillow raises for damaged files."""


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image file after its EXIF rotation, from its header alone.

    Raises:
        DataError: if the file is missing, no image, or larger than Pillow allows (179 million pixels).
    """
    with _opened(Path(path), "the image file") as image:
        turned = _orientation(image) in _SIDEWAYS
        width, height = image.size[::-1] if turned else image.size
    return height, width


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB, its EXIF rotation applied.

    Raises:
        DataError: if the file is missing, empty, too large, cut short, or cannot be decoded.
    """
    path = Path(path)
    _opened(path, "the image file").close()
    return _pixels(read_bytes(path, fail=DataError), path)


def decode_image(data: bytes, record: str) -> np.ndarray:
    """The picture in the bytes of an image file, as `read_image` reads one; `record` names it in messages."""
    _header(io.BytesIO(data), record, "the image")
    return _pixels(data, record)


def _pixels(data: bytes, path: str | Path) -> np.ndarray:
    if data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise DataError(path, "the JPEG is cut short: its end is missing; fetch it again")
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise DataError(path, "the image is damaged, or of a kind that OpenCV cannot decode; fetch it again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_label_map(path: str | Path) -> np.ndarray:
    """Read a label map as (H, W) uint8 class numbers: of a palette image its indices, not its colours.

    Grey of 1, 2 or 4 bits has the numbers that the file holds. EXIF rotation is applied, as to photographs.

    Raises:
        DataError: if the file is missing, empty, cannot be decoded, or has more than one byte a pixel.
    """
    path = Path(path)
    label = _loaded(path, "the label map")
    if label.mode not in ("1", "L", "P"):
        raise DataError(
            path,
            f"its pixels are {label.mode}, but a label map holds one class number of 0 to 255 a pixel, in grey or by a "
            "palette; fetch it again, or write it so",
        )
    numbers = np.asarray(label if label.mode == "P" else label.convert("L"))
    return numbers // _grey_step(path) if label.mode != "P" else numbers


def read_mask(path: str | Path) -> np.ndarray:
    """Read the mask of one object as (H, W) boolean: pixels that are neither black nor transparent.

    Of a palette image the colours count, not the indices. EXIF rotation is applied, as to photographs.

    Raises:
        DataError: if the file is missing, empty or cannot be decoded.
    """
    path = Path(path)
    return _drawn(_loaded(path, "the mask"), path)


def decode_mask(data: bytes, record: str) -> np.ndarray:
    """The mask in the bytes of an image file, as `read_mask` reads one; `record` names it in messages."""
    image = _header(io.BytesIO(data), record, "the mask")
    return _drawn(_turned(image, record, "the mask"), record)


def _drawn(mask: Image.Image, record: str | Path) -> np.ndarray:
    several = mask.mode == "P" and mask.getextrema() != (mask.getpixel((0, 0)),) * 2
    if mask.mode == "P" or "transparency" in mask.info:
        mask = mask.convert("RGBA")
    pixels = np.asarray(mask)
    if pixels.ndim == 2:
        return np.asarray(pixels > 0)
    colours, alpha = (pixels[..., :-1], pixels[..., -1]) if mask.mode in ("RGBA", "LA") else (pixels, None)
    drawn = np.asarray(colours.any(axis=-1))
    visible = drawn if alpha is None else np.asarray(alpha > 0)
    if not visible.all() and alpha is not None and not drawn[visible].any():
        return visible  # a black drawing on a transparent ground
    drawn &= visible
    if several and (drawn.all() or not drawn.any()):
        raise DataError(record, "none or all colours of its palette are black: make its background black, all else not")
    return drawn


def _opened(path: Path, what: str) -> Image.Image:
    """An image whose header was read."""
    try:
        refuse_irregular(path)
    except FileNotFoundError:
        raise DataError(path, f"{what} does not exist") from None
    return _header(path, path, what)


def _header(source: Path | io.BytesIO, path: str | Path, what: str) -> Image.Image:
    from PIL import Image, UnidentifiedImageError  # here, for it takes as long as the rest of a command's start

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(source)
    except UnidentifiedImageError:
        with source.open("rb") if isinstance(source, Path) else source as file:
            file.seek(0)
            found = foreign_content(file.read(100))
        raise DataError(
            path, f"the file is not an image that can be decoded{f', but {found}' if found else ''}; fetch it again"
        ) from None
    except Image.DecompressionBombError as error:
        raise DataError(path, f"{what} is too large ({error}); make it smaller") from error
    except _DAMAGED as error:
        raise DataError(path, f"{what} cannot be decoded ({error}); fetch it again") from error
    return image


def _orientation(image: Image.Image) -> int | None:
    from PIL import ExifTags

    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGED:
        return None


def _loaded(path: Path, what: str) -> Image.Image:
    with _opened(path, what) as image:
        _verify(image, path, what)
    with _opened(path, what) as image:
        return _turned(image, path, what)


def _verify(image: Image.Image, path: str | Path, what: str) -> None:
    """Compare the checksums of a PNG, which decoding alone does not; the image cannot be used afterwards."""
    try:
        image.verify()
    except _DAMAGED as error:
        raise DataError(path, f"{what} cannot be decoded: it is damaged ({error}); fetch it again") from error


def _turned(image: Image.Image, path: str | Path, what: str) -> Image.Image:
    from PIL import ImageOps

    try:
        image.load()
        turned: Image.Image | None = ImageOps.exif_transpose(image)
    except _DAMAGED as error:
        raise DataError(path, f"{what} cannot be decoded ({error}); fetch it again") from error
    return image if turned is None else turned


def _grey_step(path: Path) -> int:
    """What a grey level of the file is after decoding: PNG of 1, 2 or 4 bits is spread over 0 to 255."""
    start = path.read_bytes()[:26]
    if not start.startswith(b"\x89PNG") or start[24] >= 8:
        return 1
    return 255 // ((1 << start[24]) - 1)
