"""Forms in which a folder of one's own may hold images and masks: LabelMe files, or a COCO file.

Everything that can be checked without decoding a photograph is checked when a form is opened.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dataset.readers.coco import CocoImage, CocoInstances
from dataset.readers.folder import DataFolder, ImageRoots
from dataset.readers.labelme import LabelMeFile, phrase_of, read_labelme
from utils.errors import DataError

FORMS = (
    "A folder holds one of three forms: LabelMe files NAME.json beside NAME.jpg, .jpeg or .png; or one COCO file "
    "beside its images or their folder images/; or images/NAME.jpg with PNG masks, either masks/NAME/PHRASE.png or "
    "masks/NAME.png and labels.txt"
)
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, eq=False)
class Labels:
    """What is labelled in an image.

    Attributes:
        record: where it comes from.
        phrases: at least one, each once.
        mask_of: phrase to (H, W) boolean.
        ignore: (H, W) boolean, pixels of no phrase and no background, or None.
        objects_of: phrase to the objects (m, H, W) that its mask unites, or None where they are not told apart.
    """

    record: str
    phrases: tuple[str, ...]
    mask_of: Callable[[str], np.ndarray]
    ignore: np.ndarray | None = None
    objects_of: Callable[[str], np.ndarray] | None = None


class Form(Protocol):
    """The labelled images of a folder in a fixed order; those without a phrase are left out."""

    def __len__(self) -> int: ...

    def image(self, number: int) -> Path:
        """The file of image `number`."""

    def files(self, number: int) -> tuple[Path, ...]:
        """All files that image `number` and its labels are read from."""

    def labels(self, number: int, size: tuple[int, int]) -> Labels:
        """What is labelled in image `number` of (height, width); raises `DataError`, as `mask_of` of the result does,
        if something cannot be used."""


class LabelMeForm:
    """Files of LabelMe, each beside its image; `imagePath` is followed only inside the folder.

    Args:
        folder: of the images.
        files: in it.
    """

    def __init__(self, folder: Path, files: list[Path]) -> None:
        images, roots = images_by_stem(folder), ImageRoots(DataFolder(folder, folder), ".")
        self._files = [file for path in files if (file := read_labelme(path)).phrases]
        self._images = [
            images.get(stem_of(file.path)) or roots.find(file.image_name or "", str(file.path)) for file in self._files
        ]
        _refuse_sharing(self._files, self._images)
        refuse_nothing(len(self), folder)

    def __len__(self) -> int:
        return len(self._files)

    def image(self, number: int) -> Path:
        """See `Form`."""
        return self._images[number]

    def files(self, number: int) -> tuple[Path, ...]:
        """See `Form`."""
        return self._images[number], self._files[number].path

    def labels(self, number: int, size: tuple[int, int]) -> Labels:
        """See `Form`."""
        file = self._files[number]
        masks, ignored = file.paint(*size)
        return Labels(str(file.path), file.phrases, masks.__getitem__, ignored)


class CocoForm:
    """A COCO file; all instances of a category are one mask.

    Args:
        path: of the file; images lie beside it or in `images/`.
        index: see `open_form`.
    """

    def __init__(self, path: Path, index: Path) -> None:
        self._coco = CocoInstances(path, index)
        self._coco.refuse_problems()
        self._numbers = np.flatnonzero(self._coco.annotation_counts)
        self._images = ImageRoots(DataFolder(path.parent, index), ".", "images")
        self._images.check(len(self), lambda n: self._record(n).file_name, str(path), every=True)
        refuse_nothing(len(self), path)

    def __len__(self) -> int:
        return len(self._numbers)

    def image(self, number: int) -> Path:
        """See `Form`."""
        record = self._record(number)
        return self._images.find(record.file_name, self._name(record))

    def files(self, number: int) -> tuple[Path, ...]:
        """See `Form`."""
        return self.image(number), self._coco.path

    def labels(self, number: int, size: tuple[int, int]) -> Labels:
        """See `Form`."""
        record = self._record(number)
        refuse_other_size(self._name(record), (record.height, record.width), size)
        instances: dict[str, list[dict[str, Any]]] = {}
        for annotation in self._coco.annotations(int(self._numbers[number])):
            instances.setdefault(self._phrase(annotation), []).append(annotation)

        def objects_of(phrase: str) -> np.ndarray:
            return np.stack([self._coco.mask(annotation, record) for annotation in instances[phrase]])

        return Labels(
            self._name(record),
            tuple(instances),
            lambda phrase: np.asarray(objects_of(phrase).any(axis=0)),
            objects_of=objects_of,
        )

    def _record(self, number: int) -> CocoImage:
        return self._coco.image(int(self._numbers[number]))

    def _name(self, record: CocoImage) -> str:
        return f"{self._coco.path}, image {record.id}"

    def _phrase(self, annotation: dict[str, Any]) -> str:
        category = annotation["category_id"]
        phrase = phrase_of(self._coco.categories.get(category, ""))
        if not phrase:
            raise DataError(
                f"{self._coco.path}, annotation {annotation['id']}",
                f'its category {category} has no name in the list "categories"; add it',
            )
        return phrase


def listed(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files with a suffix in sorted order; archives made on a Mac hold a hidden "._NAME" for every file."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))


def stem_of(path: Path) -> str:
    """Name without suffix, letters composed, for some systems decompose them in file names."""
    return unicodedata.normalize("NFC", path.stem)


def _refuse_sharing(files: list[LabelMeFile], images: list[Path]) -> None:
    owner: dict[Path, Path] = {}
    for file, image in zip(files, images, strict=True):
        if owner.setdefault(image, file.path) != file.path:
            raise DataError(
                file.path, f"its image {image.name} has labels in {owner[image].name} already; join the files"
            )


def images_by_stem(folder: Path) -> dict[str, Path]:
    """Images of a folder by their name without suffix.

    Raises:
        FileNotFoundError: if there is no such folder.
        DataError: if two have the same name.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist. {FORMS}")
    found: dict[str, Path] = {}
    for path in listed(folder, SUFFIXES):
        stem = stem_of(path)
        if found.setdefault(stem, path) != path:
            raise DataError(
                path,
                f"it differs from {found[stem].name} in the suffix alone, but labels are found by the name; rename one",
            )
    return found


def refuse_other_size(record: str, size: tuple[int, ...], image: tuple[int, int]) -> None:
    """Raise `DataError` unless (height, width) is that of an image."""
    if size != image:
        raise DataError(
            record,
            f"it has {size[0]} x {size[1]} pixels, but its image {image[0]} x {image[1]} after the "
            "rotation that the image file asks for (EXIF); annotate the image again",
        )


def refuse_nothing(count: int, path: Path) -> None:
    """Raise `DataError` for a folder in which nothing can be asked for."""
    if not count:
        raise DataError(path, f"no image has a label that can be asked for. {FORMS}")
