"""Parts: COCO files whose categories are objects and parts of objects (PACO-LVIS, PASCAL-Part).

A category is named `object` or `object:part`; `mouse_(computer):wheel` is read as the wheel of a mouse.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.families.assembled import Target, assemble
from dataset.images import read_image
from dataset.readers.coco import CocoImage, CocoInstances
from dataset.readers.folder import DataFolder, ImageRoots
from dataset.sample import Sample
from utils.errors import DataError


@dataclass(frozen=True)
class Layout:
    """Where a dataset keeps its annotations and photographs below the data folder."""

    annotations: str
    images: tuple[str, ...]


LAYOUTS: dict[str, Layout] = {
    "paco_lvis": Layout("vlpart/paco/annotations/paco_lvis_v1_train.json", ("coco", "refer_seg/images/mscoco/images")),
    "pascal_part": Layout("vlpart/pascal_part/train.json", ("vlpart/pascal_part/VOCdevkit/VOC2010/JPEGImages",)),
}


@dataclass(frozen=True)
class Named:
    """What a category means: an object, or one of its parts."""

    object: str
    part: str | None

    def phrase(self, rng: np.random.Generator) -> str:
        """The object's name; for a part one of two wordings, each as likely."""
        if self.part is None:
            return self.object
        return f"{self.object} {self.part}" if rng.random() < 0.5 else f"the {self.part} of the {self.object}"


def read_name(category: str, path: Path) -> Named:
    """Object and part of a category's name, in plain words.

    Raises:
        DataError: if the name is neither `object` nor `object:part`.
    """
    words = [half.split("_(")[0].replace("_", " ").strip() for half in category.split(":")]
    if len(words) > 2 or not all(words):
        raise DataError(path, f'a category is named "{category}": it must be an object, or object:part')
    return Named(words[0], words[1] if len(words) == 2 else None)


class Parts:
    """A training source: one sample for each image that has annotations.

    Args:
        data: the data folder.
        name: of the dataset, a key of `LAYOUTS`.
        max_questions: most questions about an image.
        max_per_question: most phrases in a question.

    Raises:
        FileNotFoundError: if a file or folder or the images are missing.
        DataError: if the file cannot be used, or no image has annotations.
    """

    def __init__(self, data: DataFolder, name: str, *, max_questions: int, max_per_question: int) -> None:
        layout = LAYOUTS[name]
        self._path = data.find(layout.annotations)
        self._coco = CocoInstances(self._path, data.index)
        self._named = {number: read_name(text, self._path) for number, text in self._coco.categories.items()}
        self._numbers = np.flatnonzero(self._coco.annotation_counts)
        if not len(self._numbers):
            raise DataError(self._path, "no image has annotations; fetch it again")
        self._images = ImageRoots(data, *layout.images)
        self._images.check(len(self), self._file_name, str(self._path))
        self._max_questions, self._max_per_question = max_questions, max_per_question

    def __len__(self) -> int:
        return len(self._numbers)

    def training_sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Ask for up to `max_questions * max_per_question` objects and parts of an image, drawn by `rng` alone. All
        instances of one are a single mask; one without any pixel is left out.

        Raises:
            DataError: if image or annotations are malformed or differ in size, or no annotation has a pixel.
        """
        number = int(self._numbers[index])
        image = self._coco.image(number)
        record = f"{self._path}, image {image.id}"
        instances = self._instances(number)
        targets: list[Target] = []
        for place in rng.permutation(len(instances)):
            if len(targets) == self._max_questions * self._max_per_question:
                break
            named = list(instances)[place]
            mask = self._united(instances[named], image)
            if mask.any():
                targets.append(Target(named.phrase(rng), mask))
        if not targets:
            raise DataError(record, "no pixel belongs to any of its annotations, so there is nothing to learn")
        return assemble(
            record,
            read_image(self._images.find(image.file_name, record)),
            targets,
            max_questions=self._max_questions,
            max_per_question=self._max_per_question,
            rng=rng,
        )

    def _file_name(self, index: int) -> str:
        return self._coco.image(int(self._numbers[index])).file_name

    def _instances(self, number: int) -> dict[Named, list[dict[str, Any]]]:
        """Annotations of an image by what they show, in file order."""
        found: dict[Named, list[dict[str, Any]]] = {}
        for annotation in self._coco.annotations(number):
            category = annotation["category_id"]
            if category not in self._named:
                raise DataError(
                    f"{self._path}, annotation {annotation['id']}",
                    f'its category {category} is not in the list "categories"; fetch the file again',
                )
            found.setdefault(self._named[category], []).append(annotation)
        return found

    def _united(self, annotations: list[dict[str, Any]], image: CocoImage) -> np.ndarray:
        united = np.zeros((image.height, image.width), dtype=bool)
        for annotation in annotations:
            united |= self._coco.mask(annotation, image)
        return united
