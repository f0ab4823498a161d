"""Images of one's own: every phrase that is labelled in an image is asked for, without any code.

The form of a folder is found by what lies there, see `dataset.families.custom_forms` and `custom_masks`.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from dataset.families.assembled import Target, assemble
from dataset.families.custom_forms import FORMS, CocoForm, Form, LabelMeForm, Labels, listed
from dataset.families.custom_masks import LabelMapForm, PhraseMaskForm
from dataset.families.refer_seg import asked_together
from dataset.images import image_size, read_image
from dataset.readers.folder import DataFolder
from dataset.readers.json_stream import first_key
from dataset.sample import Protocol, Sample
from dataset.source import Benchmark, Family, FamilyOptions, Source, others
from dataset.wording import sampled
from utils.errors import DataError, SettingsError

_KEYS = {"shapes": "labelme", "images": "coco", "annotations": "coco", "categories": "coco"}
"""Keys by which a JSON file is told."""


def open_form(folder: Path, index: Path) -> Form:
    """Find out a folder's form and check what it holds.

    Args:
        folder: of images and masks.
        index: folder of indices, see `dataset.readers.records`.

    Raises:
        FileNotFoundError: if there is no such folder, or images of a COCO file are missing.
        DataError: if it holds none of the forms, several, or something malformed.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"--custom_data {folder} does not exist; give a folder of images and masks. {FORMS}")
    files: dict[str, list[Path]] = {}
    for path in listed(folder, (".json",)):
        files.setdefault(_kind(path), []).append(path)
    if (folder / "masks").is_dir():
        files["png"] = [folder / "masks"]
    if len(files) != 1 or len(files.get("coco", ())) > 1:
        found = ", ".join(str(path) for paths in files.values() for path in paths[:2])
        raise DataError(folder, f"it holds {f'{found}, which do not go together' if files else 'no masks'}. {FORMS}")
    if "labelme" in files:
        return LabelMeForm(folder, files["labelme"])
    if "coco" in files:
        return CocoForm(files["coco"][0], index)
    return LabelMapForm(folder) if (folder / "labels.txt").is_file() else PhraseMaskForm(folder)


def _kind(path: Path) -> str:
    """The form that a JSON file belongs to, from the first of its keys that tells."""
    key = first_key(path, _KEYS)
    if key is None:
        raise DataError(path, f'it has neither the "shapes" of LabelMe nor the "images" of COCO. {FORMS}')
    return _KEYS[key]


Images = TypeVar("Images", bound="_LabelledImages")


class _LabelledImages:
    """The labelled images of a folder, and how each is checked, see `dataset.checking`."""

    def __init__(self, folder: Path, index: Path) -> None:
        self._form = open_form(folder, index)
        self._numbers: Sequence[int] = range(len(self._form))

    def __len__(self) -> int:
        return len(self._numbers)

    def files(self, index: int) -> tuple[Path, ...]:
        """See `dataset.checking.Checkable`."""
        return self._form.files(self._numbers[index])

    def check(self, index: int) -> bool:
        """See `dataset.checking.Checkable`: whether any phrase has a pixel."""
        number = self._numbers[index]
        labels = self._form.labels(number, image_size(self._form.image(number)))
        return max([bool(labels.mask_of(phrase).any()) for phrase in labels.phrases])

    def without(self: Images, indices: Collection[int]) -> Images:
        """See `dataset.checking.Checkable`."""
        left = copy.copy(self)
        left._numbers = others(self._numbers, indices)
        return left

    def _read(self, index: int) -> tuple[np.ndarray, Labels]:
        """(H, W, 3) uint8 RGB of an image, and what is labelled in it."""
        number = self._numbers[index]
        image = read_image(self._form.image(number))
        height, width = image.shape[:2]
        return image, self._form.labels(number, (height, width))


class Custom(_LabelledImages):
    """The training source: one sample for each labelled image.

    Args:
        folder: of images and masks.
        index: folder of indices, see `dataset.readers.records`.
        max_questions: most questions about an image.
        max_per_question: most phrases in a question.
        instances: tell the objects of a phrase apart, which a COCO file does.

    Raises:
        FileNotFoundError: if there is no such folder, or images of a COCO file are missing.
        DataError: if it holds none of the forms, several, or something malformed.
    """

    def __init__(
        self, folder: Path, index: Path, *, max_questions: int, max_per_question: int, instances: bool = False
    ) -> None:
        super().__init__(folder, index)
        self._max_questions, self._max_per_question = max_questions, max_per_question
        self._instances = instances

    def training_sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Ask for up to `max_questions * max_per_question` phrases of an image, drawn by `rng` alone.

        Raises:
            DataError: if image or masks cannot be read or differ in size, or no phrase has a pixel.
        """
        image, labels = self._read(index)
        objects_of = labels.objects_of if self._instances else None
        order = [labels.phrases[n] for n in sampled(len(labels.phrases), len(labels.phrases), rng)]
        masks = _masks(labels, order, self._max_questions * self._max_per_question)
        return assemble(
            labels.record,
            image,
            [Target(phrase, mask, objects_of(phrase) if objects_of else None) for phrase, mask in masks.items()],
            ignore=labels.ignore,
            max_questions=self._max_questions,
            max_per_question=self._max_per_question,
            rng=rng,
        )


class CustomBenchmark(_LabelledImages):
    """The benchmark: one sample for each labelled image, with every phrase, asked and scored as RefCOCO's.

    Args:
        folder: of images and masks.
        index: folder of indices.

    Attributes:
        scoring: how answers are scored.
        protocols: how the benchmark may be asked.

    Raises:
        FileNotFoundError: as `Custom`.
        DataError: as `Custom`.
    """

    scoring = "refer"
    protocols: tuple[Protocol, ...] = ("forced", "generate")

    def __init__(self, folder: Path, index: Path) -> None:
        super().__init__(folder, index)
        self._folder = folder

    def evaluation_sample(self, index: int, *, protocol: Protocol) -> Sample:
        """Every phrase of one image: `generate` asks each by itself, `forced` all in one question with its answer.

        Raises:
            DataError: if image or masks cannot be used, or the benchmark has no such protocol.
        """
        if protocol not in self.protocols:
            raise DataError(self._folder, f"it has no protocol {protocol}; allowed: {', '.join(self.protocols)}")
        image, labels = self._read(index)
        masks = _masks(labels, labels.phrases, len(labels.phrases))
        return asked_together(
            labels.record,
            image,
            tuple(masks),
            np.stack(tuple(masks.values())),
            protocol=protocol,
            rejects=False,
            ignore=None if labels.ignore is None else np.stack([labels.ignore] * len(masks)),
        )


def _masks(labels: Labels, phrases: Sequence[str], most: int) -> dict[str, np.ndarray]:
    """(H, W) boolean of the first `most` of some phrases that have a pixel."""
    found: dict[str, np.ndarray] = {}
    for phrase in phrases:
        if len(found) == most:
            break
        mask = labels.mask_of(phrase)
        if mask.any():
            found[phrase] = mask
    if not found:
        raise DataError(labels.record, "no pixel belongs to any of its labels, so there is nothing to learn")
    return found


def _folder(options: FamilyOptions) -> Path:
    if options.custom_data is None:
        raise SettingsError("the dataset custom needs --custom_data FOLDER; docs/data.md says what the folder holds")
    return Path(options.custom_data)


def _source(name: str, data: DataFolder, options: FamilyOptions) -> Source:
    return Custom(
        _folder(options),
        data.index,
        max_questions=options.max_questions,
        max_per_question=options.max_per_question,
        instances=options.instances,
    )


def _benchmark(name: str, data: DataFolder, options: FamilyOptions) -> Benchmark:
    return CustomBenchmark(_folder(options), data.index)


FAMILY = Family(
    name="custom",
    sets={},
    chosen="",
    about="own photographs, see --custom_data",
    source=_source,
    benchmarks={"custom": ("custom",)},
    benchmark=_benchmark,
)
