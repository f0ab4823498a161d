"""Forms in which a folder of one's own may hold images and masks: PNG masks of phrases, or label maps."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import cv2
import numpy as np

from dataset.families.custom_forms import (
    FORMS,
    SUFFIXES,
    Labels,
    images_by_stem,
    listed,
    refuse_nothing,
    refuse_other_size,
    stem_of,
)
from dataset.images import read_label_map, read_mask
from dataset.masks import IGNORE
from dataset.readers.labelme import is_ignored, phrase_of
from utils.errors import DataError
from utils.files import read_bytes
from utils.json_text import decode_text

_BACKGROUND = "background"
_NO_MASKS = (".bmp", ".gif", ".tif", ".tiff", ".webp", ".jp2", ".avif", ".npy")


class PhraseMaskForm:
    """`images/NAME.jpg` and `masks/NAME/PHRASE.png`; pixels that are neither black nor transparent are the phrase's.

    Args:
        folder: that holds both.
    """

    def __init__(self, folder: Path) -> None:
        images = images_by_stem(folder / "images")
        stray = _masks_of(folder / "masks")
        if stray:
            raise DataError(stray[0], f"a label map needs labels.txt, which {folder} lacks. {FORMS}")
        self._masks: list[tuple[Path, dict[str, list[Path]]]] = []
        for masks in sorted(path for path in (folder / "masks").iterdir() if path.is_dir()):
            files: dict[str, list[Path]] = {}
            for path in _masks_of(masks):
                files.setdefault(phrase_of(stem_of(path)), []).append(path)
            if files:
                self._masks.append((_image_of(masks, images), files))
        refuse_nothing(len(self), folder)

    def __len__(self) -> int:
        return len(self._masks)

    def image(self, number: int) -> Path:
        """See `Form`."""
        return self._masks[number][0]

    def files(self, number: int) -> tuple[Path, ...]:
        """See `Form`."""
        path, files = self._masks[number]
        return path, *(mask for masks in files.values() for mask in masks)

    def labels(self, number: int, size: tuple[int, int]) -> Labels:
        """See `Form`."""
        path, files = self._masks[number]
        return Labels(str(path), tuple(files), lambda phrase: _united(files[phrase], size))


class LabelMapForm:
    """`images/NAME.jpg`, label maps `masks/NAME.png` and `labels.txt`, whose line v, counted from 0, names value v.

    A first line `__ignore__` stands before line 0, as in LabelMe's own lists. Pixels of 255, and of names that contain
    "ignore", are of no phrase and no background; the background, and values whose line is empty, are not asked for.

    Args:
        folder: that holds all of them.
    """

    def __init__(self, folder: Path) -> None:
        from utils.progress import Bar  # tqdm takes a tenth of the time of --help

        self._label_names = folder / "labels.txt"
        self._names = _names(self._label_names)
        images = images_by_stem(folder / "images")
        self._maps: list[tuple[Path, Path, dict[str, list[int]]]] = []
        for path in Bar(_masks_of(folder / "masks"), desc="label maps", delay=2, leave=False):
            phrases = self._phrases(path)
            if phrases:
                self._maps.append((_image_of(path, images), path, phrases))
        refuse_nothing(len(self), folder)

    def __len__(self) -> int:
        return len(self._maps)

    def image(self, number: int) -> Path:
        """See `Form`."""
        return self._maps[number][0]

    def files(self, number: int) -> tuple[Path, ...]:
        """See `Form`."""
        path, map_path, _ = self._maps[number]
        return path, map_path, self._label_names

    def labels(self, number: int, size: tuple[int, int]) -> Labels:
        """See `Form`."""
        _, map_path, phrases = self._maps[number]
        label = read_label_map(map_path)
        refuse_other_size(str(map_path), label.shape, size)
        ignored = [IGNORE, *(value for value, name in enumerate(self._names) if is_ignored(name))]
        return Labels(str(map_path), tuple(phrases), lambda phrase: _of(label, phrases[phrase]), _of(label, ignored))

    def _phrases(self, path: Path) -> dict[str, list[int]]:
        """Values of each phrase in a label map."""
        found: dict[str, list[int]] = {}
        for value in np.unique(read_label_map(path)).tolist():
            if value == IGNORE:
                continue
            if value >= len(self._names):
                last = len(self._names) - 1
                raise DataError(path, f"a pixel has the value {value}, but labels.txt names 0 to {last}; add its line")
            phrase = phrase_of(self._names[value])
            if phrase and phrase.lower() != _BACKGROUND and not is_ignored(phrase):
                found.setdefault(phrase, []).append(value)
        return found


def _names(path: Path) -> list[str]:
    try:
        names = [line.strip() for line in decode_text(read_bytes(path)).splitlines()]
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(path, str(error)) from error
    names = names[1:] if names[:1] == ["__ignore__"] else names
    if len(names) > IGNORE:
        raise DataError(path, f"it names {len(names)} values, but a label map has at most {IGNORE}; remove some")
    return names


def _of(label: np.ndarray, values: list[int]) -> np.ndarray:
    """(H, W) boolean: pixels that have one of some values."""
    table = np.zeros(256, np.uint8)
    table[values] = 1
    return cv2.LUT(label, table).view(bool)


def _united(paths: list[Path], size: tuple[int, int]) -> np.ndarray:
    united = np.zeros(size, dtype=bool)
    for path in paths:
        mask = read_mask(path)
        refuse_other_size(str(path), mask.shape, size)
        united |= mask
    return united


def _masks_of(folder: Path) -> list[Path]:
    """PNG files of a folder; another picture among them is no mask.

    Raises:
        DataError: naming such a picture.
    """
    other = listed(folder, (*(suffix for suffix in SUFFIXES if suffix != ".png"), *_NO_MASKS))
    if other:
        raise DataError(other[0], "masks must be PNG files, for other formats change pixels; save it as .png")
    return listed(folder, (".png",))


def _image_of(masks: Path, images: dict[str, Path]) -> Path:
    name = stem_of(masks) if masks.is_file() else unicodedata.normalize("NFC", masks.name)
    if name not in images:
        raise DataError(masks, f"there is no image {name} with {', '.join(SUFFIXES)} in images/; add it")
    return images[name]
