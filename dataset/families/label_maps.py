"""Label maps: photographs in which every pixel has one of a list of classes (ADE20K, COCO-Stuff, Mapillary Vistas).

A label map is a PNG of class numbers beside its photograph, with the same stem. Pixels of value 255, and pixels of a
class that is never asked for, are void: they belong neither to a mask nor to its background.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import cv2
import numpy as np

from dataset.families.assembled import Target, assemble
from dataset.images import read_image, read_label_map
from dataset.masks import IGNORE
from dataset.readers import checks
from dataset.readers.checks import MalformedError
from dataset.readers.folder import DataFolder, ImageRoots
from dataset.sample import Sample
from dataset.wording import sampled
from utils.errors import DataError
from utils.files import read_json
from utils.shown import shown

VOID = -1

Names = tuple[str | None, ...]
"""Phrase of each pixel value from 0; None for a class that is not asked for."""


def ade20k_names(data: DataFolder) -> Names:
    """Value 0 is void; the 150 classes follow."""
    return (None, *_listed("ade20k"))


def cocostuff_names(data: DataFolder) -> Names:
    """182 classes. Names with a hyphen are remainders ("wall-other") and materials ("floor-wood"), not asked for."""
    return tuple(None if "-" in name else name for name in _listed("cocostuff"))


def mapillary_names(data: DataFolder) -> Names:
    """The classes of the data's own configuration, but those that it groups as void (unlabeled, ego vehicle, ...).

    Raises:
        FileNotFoundError: if there is no configuration.
        DataError: if it does not list classes.
    """
    path = data.find("mapillary/config_v2.0.json")
    try:
        labels = checks.get(read_json(path, kind=dict), "labels", list, "the file")
        names = tuple(_mapillary_name(label, f"label {value}") for value, label in enumerate(labels))
    except MalformedError as error:
        raise DataError(path, f"{error}; it must be the configuration that comes with Mapillary Vistas 2.0") from error
    if not any(names) or len(names) > IGNORE:
        raise DataError(path, f"it lists {len(names)} labels: there must be 1 to {IGNORE}, not all of them void")
    return names


def _mapillary_name(label: object, record: str) -> str | None:
    if not isinstance(label, dict):
        raise MalformedError(f"{record} is {shown(label)}: it must be an object")
    if checks.text(label, "name", record).split("--")[0] == "void":
        return None
    return checks.text(label, "readable", record).lower().replace("_", " ")


def _listed(name: str) -> list[str]:
    file = resources.files("dataset.families") / "classes" / f"{name}.json"
    names: list[str] = json.loads(file.read_text(encoding="utf-8"))
    return names


@dataclass(frozen=True)
class Layout:
    """Where a dataset keeps label maps and photographs below the data folder, and what its pixel values mean."""

    labels: str
    images: tuple[str, ...]
    names: Callable[[DataFolder], Names]


LAYOUTS: dict[str, Layout] = {
    "ade20k": Layout("ade20k/annotations/training", ("ade20k/images/training",), ade20k_names),
    "cocostuff": Layout(
        "cocostuff/train2017", ("coco/train2017", "refer_seg/images/mscoco/images/train2017"), cocostuff_names
    ),
    "mapillary": Layout("mapillary/training/v2.0/labels", ("mapillary/training/images",), mapillary_names),
}


class LabelMaps:
    """A training source: one sample for each label map, in sorted order.

    Args:
        data: the data folder.
        name: of the dataset, a key of `LAYOUTS`.
        max_questions: most questions about an image.
        max_per_question: most classes in a question.

    Raises:
        FileNotFoundError: if a folder or the images are missing, or there is no label map.
        DataError: if the dataset's list of classes is malformed.
    """

    def __init__(self, data: DataFolder, name: str, *, max_questions: int, max_per_question: int) -> None:
        layout = LAYOUTS[name]
        self._folder = data.find(layout.labels)
        # Archives made on a Mac hold a hidden "._NAME.png" for every file.
        self._stems = sorted(p.stem for p in self._folder.glob("*.png") if not p.name.startswith("."))
        if not self._stems:
            raise FileNotFoundError(f"{self._folder} holds no .png label map; see docs/data.md")
        self._images = ImageRoots(data, *layout.images)
        self._images.check(len(self), self._image_name, str(self._folder))
        self._names = layout.names(data)
        self._phrases = tuple(dict.fromkeys(name for name in self._names if name))
        self._classes = np.full(IGNORE + 1, VOID)
        self._classes[: len(self._names)] = [self._phrases.index(name) if name else VOID for name in self._names]
        self._max_questions, self._max_per_question = max_questions, max_per_question

    def __len__(self) -> int:
        return len(self._stems)

    def training_sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Ask for up to `max_questions * max_per_question` of the classes in an image, drawn by `rng` alone.

        Raises:
            DataError: if label map or image cannot be read or differ in size, a pixel has an unknown value, or no
                pixel has a class that can be asked for.
        """
        path = self._folder / f"{self._stems[index]}.png"
        label = read_label_map(path)
        present = self._present(label, path)
        image = read_image(self._images.find(self._image_name(index), str(path)))
        drawn = sampled(len(present), self._max_questions * self._max_per_question, rng)
        return assemble(
            str(path),
            image,
            [Target(self._phrases[present[n]], self._pixels(label, present[n])) for n in drawn],
            ignore=self._pixels(label, VOID),
            max_questions=self._max_questions,
            max_per_question=self._max_per_question,
            rng=rng,
        )

    def _image_name(self, index: int) -> str:
        return f"{self._stems[index]}.jpg"

    def _present(self, label: np.ndarray, path: Path) -> list[int]:
        """Numbers of the classes in a label map, ascending."""
        values = np.unique(label)
        unknown = values[(values >= len(self._names)) & (values != IGNORE)]
        if len(unknown):
            raise DataError(
                path,
                f"a pixel has the value {unknown[0]}: allowed are 0 to {len(self._names) - 1}, and {IGNORE} for "
                "no class; label maps and list of classes must be of one release",
            )
        classes = np.unique(self._classes[values])
        if classes.max() == VOID:
            raise DataError(path, "no pixel has a class that can be asked for, so there is nothing to learn")
        return [int(number) for number in classes if number != VOID]

    def _pixels(self, label: np.ndarray, number: int) -> np.ndarray:
        """(H, W) boolean: pixels of a class, or of none (`VOID`)."""
        # A table look-up: no array of more than a byte a pixel, however large the photograph.
        return cv2.LUT(label, (self._classes == number).astype(np.uint8)).view(bool)
