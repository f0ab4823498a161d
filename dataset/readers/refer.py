"""REFER records: phrases about objects of COCO images, in the forms of RefCOCO and all its relatives.

A file of references (`refs(unc).p`, `grefs(unc).json`, `Ref_ZOM.p`, ...) beside an `instances.json`. A reference has
`image_id`, `split`, `ann_id` (a number, or a list: `[]` and `[-1]` mean that there is no such object) and `sentences`
with `sent`, and where premises can be false `exist`, or `is_false_premise` with `gt_sent`. A reference without
sentences, of which gRefCOCO has some, asks for nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.readers import checks
from dataset.readers.checks import MalformedError
from dataset.readers.coco import CocoImage, CocoInstances
from dataset.readers.pickles import read_pickle
from dataset.readers.records import RecordWriter, open_records
from utils.errors import DataError
from utils.files import read_json
from utils.shown import shown


@dataclass(frozen=True)
class Phrase:
    """What is asked for, and the annotations that are meant; none if there is no such object.

    `true_text` is the phrase that fits the image where `text` is a false premise and the file says so.
    """

    text: str
    annotations: tuple[int, ...]
    record: str
    true_text: str | None = None


@dataclass(frozen=True)
class ReferredImage:
    """An image and every phrase of a split about it, at least one, in file order."""

    record: str
    image: CocoImage
    phrases: tuple[Phrase, ...]


class ReferSplit:
    """The images of one split.

    Args:
        references: the file of references.
        instances: `instances.json`.
        index: folder of indices, see `dataset.readers.records`.
        split: `train` and `val` match exactly; `test` matches every split with "test" in its name, and `testA` every
            one with an A in it, so that `testAB` is in both.
        exact: match all names exactly (gRefCOCO).

    Raises:
        DataError: if a file is missing or cannot be used, or has no such split.
    """

    def __init__(self, references: Path, instances: Path, index: Path, split: str, *, exact: bool = False) -> None:
        self.path = references
        self.instances = CocoInstances(instances, index)
        self._records = open_records(references, index, kind="refer", build=_build)
        self._splits: list[str] = self._records.header["splits"]
        self._wanted = {name for name in self._splits if _matches(name, split, exact)}
        if not self._wanted:
            raise DataError(references, f"it has no split {split}; it has {', '.join(self._splits) or 'none'}")
        chosen = [number for number, name in enumerate(self._splits) if name in self._wanted]
        self._numbers = np.flatnonzero(self._records.array("has_split")[:, chosen].any(axis=1))

    def __len__(self) -> int:
        """Images with a phrase of the split."""
        return len(self._numbers)

    def __getitem__(self, number: int) -> ReferredImage:
        """Image `number`.

        Raises:
            DataError: if one of its references is malformed, or its image is not in the instances.
        """
        record = self._records[int(self._numbers[number])]
        name = f"{self.path}, image {record['image_id']}"
        image = self.instances.image(self.instances.number_of(record["image_id"], name))
        phrases = [
            Phrase(text, tuple(ref["ann_ids"]) if exists else (), f"{self.path}, reference {ref['ref_id']}", true_text)
            for ref in record["refs"]
            if ref["split"] in self._wanted
            for text, exists, true_text in ref["sentences"]
        ]
        return ReferredImage(name, image, tuple(phrases))

    def file_name(self, number: int) -> str:
        """File name of image `number`; raises as `self[number]` does."""
        return self[number].image.file_name

    def mask(self, phrase: Phrase, image: CocoImage) -> np.ndarray:
        """(H, W) boolean union of what a phrase means, empty if that is nothing; raises as `objects`."""
        return np.asarray(self.objects(phrase, image).any(axis=0))

    def objects(self, phrase: Phrase, image: CocoImage) -> np.ndarray:
        """(m, H, W) boolean of each object that a phrase means.

        Raises:
            DataError: if an annotation is missing, malformed, or of another image.
        """
        found = np.zeros((len(phrase.annotations), image.height, image.width), dtype=bool)
        for number, annotation_id in enumerate(phrase.annotations):
            annotation = self.instances.annotation(annotation_id, phrase.record)
            if annotation["image_id"] != image.id:
                raise DataError(
                    phrase.record,
                    f"annotation {annotation_id} belongs to image {annotation['image_id']}, not {image.id}; "
                    "instances and references are not of one set",
                )
            found[number] = self.instances.mask(annotation, image)
        return found

    def refuse_problems(self) -> None:
        """Stop where no record may be left out.

        Raises:
            DataError: if a reference or annotation is malformed, or an annotation or an image of the split missing.
        """
        self._records.refuse_problems()
        self.instances.refuse_problems()
        for number in range(len(self)):
            self.file_name(number)
        missing = self.instances.missing(np.asarray(self._records.array("annotations")))
        if len(missing):
            shown = ", ".join(map(str, missing[:5]))
            raise DataError(self.path, f"{len(missing)} annotations are not in {self.instances.path}, such as {shown}")


def _matches(name: str, wanted: str, exact: bool) -> bool:
    if exact or wanted in ("train", "val"):
        return name == wanted
    if wanted == "test":
        return "test" in name
    if wanted in ("testA", "testB", "testC"):
        return wanted[-1] in name
    return name == wanted


def _build(path: Path, writer: RecordWriter) -> None:
    groups: dict[int, list[dict[str, Any]]] = {}
    problems: dict[int, str] = {}
    strays: list[str] = []
    seen: set[int] = set()
    for number, record in enumerate(_read(path)):
        try:
            reference = _reference(record, f"reference number {number}")
            if reference["ref_id"] in seen:
                raise MalformedError(f"reference {reference['ref_id']}: another reference has the same id")
            seen.add(reference["ref_id"])
            if reference["sentences"]:
                groups.setdefault(reference.pop("image_id"), []).append(reference)
        except MalformedError as error:
            image = checks.whole(record.get("image_id")) if isinstance(record, Mapping) else None
            if image is None:
                strays.append(str(error))
            else:
                problems.setdefault(image, str(error))
                groups.setdefault(image, []).append({"split": record.get("split"), "ann_ids": []})
    _write(writer, groups, problems, strays)


def _write(
    writer: RecordWriter, groups: dict[int, list[dict[str, Any]]], problems: dict[int, str], strays: list[str]
) -> None:
    splits = sorted({ref["split"] for refs in groups.values() for ref in refs if isinstance(ref["split"], str)})
    has_split = np.zeros((len(groups) + len(strays), len(splits)), dtype=bool)
    for number, (image, refs) in enumerate(groups.items()):
        if image in problems:
            writer.add_problem(problems[image])
        else:
            writer.add({"image_id": image, "refs": refs})
        has_split[number] = [any(ref["split"] == name for ref in refs) for name in splits]
    for reason in strays:
        writer.add_problem(reason)
    annotations = {index for refs in groups.values() for ref in refs for index in ref["ann_ids"]}
    writer.header["splits"] = splits
    writer.array("has_split", has_split)
    writer.array("annotations", np.asarray(sorted(annotations), dtype=np.int64))


def _read(path: Path) -> Sequence[Any]:
    content = read_json(path) if path.suffix == ".json" else read_pickle(path)
    if not isinstance(content, list) or not content:
        raise DataError(path, "it must hold a list of references; fetch it again")
    return content


def _reference(record: Any, name: str) -> dict[str, Any]:
    """What is used of a reference, with plain types."""
    ref_id = checks.get(record, "ref_id", int, name)
    name = f"reference {ref_id}"
    sentences = checks.get(record, "sentences", list, name)
    return {
        "image_id": checks.get(record, "image_id", int, name),
        "ref_id": ref_id,
        "split": checks.text(record, "split", name),
        "ann_ids": _annotation_ids(record, name),
        "sentences": [_sentence(sentence, f"{name}, sentence {place}") for place, sentence in enumerate(sentences)],
    }


def _annotation_ids(record: Mapping[str, Any], name: str) -> list[int]:
    if "ann_id" not in record:
        raise MalformedError(f'{name} has no "ann_id": give it a number, or a list of numbers')
    value = record["ann_id"]
    ids = [checks.whole(item) for item in (value if isinstance(value, list | tuple) else [value])]
    if any(number is None for number in ids):
        raise MalformedError(f'{name}: "ann_id" is {shown(value)}: it must be a number, or a list of numbers')
    return [number for number in ids if number is not None and number != -1]


def _sentence(record: Any, name: str) -> tuple[str, bool, str | None]:
    """Its words, whether there is such an object, and the words that would fit if not."""
    words = checks.text(record, "sent", name)
    if "is_false_premise" in record:
        exists = not _flag(record, "is_false_premise", name)
    else:
        exists = "exist" not in record or _flag(record, "exist", name)
    true_text = record.get("gt_sent")
    return words, exists, true_text.strip() or None if isinstance(true_text, str) and not exists else None


def _flag(record: Mapping[str, Any], key: str, name: str) -> bool:
    value = record[key]
    if isinstance(value, bool | np.bool_) or checks.whole(value) is not None:
        return bool(value)
    raise MalformedError(f'{name}: "{key}" is {shown(value)}: it must be true or false')
