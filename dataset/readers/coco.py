"""COCO instances: images, annotations by image or id, categories, from a memory-mapped index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.masks import decode_segmentation
from dataset.readers import checks
from dataset.readers.checks import MalformedError
from dataset.readers.json_stream import stream
from dataset.readers.records import RecordWriter, open_records
from utils.errors import DataError
from utils.shown import shown


@dataclass(frozen=True)
class CocoImage:
    """An image record: its id, file name as written, and size in pixels."""

    id: int
    file_name: str
    height: int
    width: int


class CocoInstances:
    """An instances file. Images are numbered in file order.

    Args:
        path: the JSON file.
        index: folder of indices, see `dataset.readers.records`.

    Raises:
        DataError: if the file is missing, no COCO file, or two images or annotations share an id.
    """

    def __init__(self, path: Path, index: Path) -> None:
        self.path = path
        self._records = open_records(path, index, kind="coco", build=_build)
        self.categories: dict[int, str] = {
            int(number): name for number, name in self._records.header["categories"].items()
        }
        self._num_images = int(self._records.header["images"])
        arrays = {name: self._records.array(name) for name in ("image_ids", "image_order", "ids", "order")}
        self._image_ids, self._image_order = arrays["image_ids"], arrays["image_order"]
        self._ids, self._order = arrays["ids"], arrays["order"]
        self._starts, self._by_image = self._records.array("starts"), self._records.array("by_image")

    def __len__(self) -> int:
        """Number of images."""
        return self._num_images

    @property
    def annotation_counts(self) -> np.ndarray:
        """Annotations of each image."""
        return np.diff(self._starts)

    def image(self, number: int) -> CocoImage:
        """Image `number`.

        Raises:
            DataError: if its record is malformed.
        """
        record = self._records[number]
        return CocoImage(record["id"], record["file_name"], record["height"], record["width"])

    def number_of(self, image_id: int, record: str) -> int:
        """Number of the image with an id; `record` names who asks.

        Raises:
            DataError: if there is none.
        """
        return self._find(self._image_ids, self._image_order, image_id, "image", record)

    def annotations(self, number: int) -> list[dict[str, Any]]:
        """Annotations of image `number`, in file order.

        Raises:
            DataError: if one is malformed.
        """
        places = self._by_image[self._starts[number] : self._starts[number + 1]]
        return [self._records[self._num_images + int(place)] for place in places]

    def annotation(self, annotation_id: int, record: str) -> dict[str, Any]:
        """The annotation with an id; `record` names who asks.

        Raises:
            DataError: if there is none, or it is malformed.
        """
        place = self._find(self._ids, self._order, annotation_id, "annotation", record)
        return dict(self._records[self._num_images + place])

    def mask(self, annotation: dict[str, Any], image: CocoImage) -> np.ndarray:
        """(H, W) boolean of an annotation.

        Raises:
            DataError: if its segmentation is malformed.
        """
        name = f"{self.path}, annotation {annotation['id']}"
        return decode_segmentation(annotation["segmentation"], image.height, image.width, path=name)

    def missing(self, annotation_ids: np.ndarray) -> np.ndarray:
        """Those of some ids that no annotation has."""
        return np.setdiff1d(annotation_ids, self._ids)

    def refuse_problems(self) -> None:
        """See `Records.refuse_problems`."""
        self._records.refuse_problems()

    def _find(self, ids: np.ndarray, order: np.ndarray, wanted: int, what: str, record: str) -> int:
        place = int(np.searchsorted(ids, wanted))
        if place == len(ids) or ids[place] != wanted:
            raise DataError(record, f"it refers to {what} {wanted}, which {self.path} lacks; fetch both files again")
        return int(order[place])


def _build(path: Path, writer: RecordWriter) -> None:
    image_ids = [_add(writer, record, number, "image") for number, record in enumerate(stream(path, "images.item"))]
    if not image_ids:
        raise DataError(path, 'it has no "images": a COCO file holds images, annotations and categories')
    writer.header["images"] = len(image_ids)
    ids, owners = [], []
    for number, record in enumerate(stream(path, "annotations.item")):
        ids.append(_add(writer, record, number, "annotation"))
        owner = checks.whole(record.get("image_id")) if isinstance(record, dict) else None
        owners.append(-1 if owner is None else owner)
    writer.header["categories"] = _categories(path)
    _write_order(path, writer, "image", np.asarray(image_ids, dtype=np.int64), "image_ids", "image_order")
    _write_order(path, writer, "annotation", np.asarray(ids, dtype=np.int64), "ids", "order")
    _group(path, writer, np.asarray(image_ids, dtype=np.int64), np.asarray(owners, dtype=np.int64))


def _add(writer: RecordWriter, record: Any, number: int, what: str) -> int:
    """Append an image or annotation, or what is wrong with it; returns its id, or -1 - number if it has none."""
    name = f"{what} number {number}"
    try:
        identity: int = checks.get(record, "id", int, name)
        name = f"{what} {identity}"
        writer.add(_image(record, identity, name) if what == "image" else _annotation(record, identity, name))
        return identity
    except MalformedError as error:
        writer.add_problem(str(error))
        found = checks.whole(record.get("id")) if isinstance(record, dict) else None
        return -1 - number if found is None else found


def _image(record: dict[str, Any], identity: int, name: str) -> dict[str, Any]:
    height, width = checks.size(record, name)
    return {"id": identity, "file_name": checks.text(record, "file_name", name), "height": height, "width": width}


def _annotation(record: dict[str, Any], identity: int, name: str) -> dict[str, Any]:
    segmentation = record.get("segmentation")
    if not isinstance(segmentation, list | dict):
        raise MalformedError(f'{name}: "segmentation" is {shown(segmentation, 40)}: it must be polygons or run lengths')
    image_id = checks.get(record, "image_id", int, name)
    category = checks.get(record, "category_id", int, name) if "category_id" in record else -1
    return {"id": identity, "image_id": image_id, "category_id": category, "segmentation": segmentation}


def _categories(path: Path) -> dict[int, str]:
    try:
        return {
            checks.get(record, "id", int, f"category number {number}"): checks.text(
                record, "name", f"category {number}"
            )
            for number, record in enumerate(stream(path, "categories.item"))
        }
    except MalformedError as error:
        raise DataError(path, str(error)) from error


def _write_order(path: Path, writer: RecordWriter, what: str, ids: np.ndarray, sorted_name: str, order: str) -> None:
    places = np.argsort(ids, kind="stable")
    ordered = ids[places]
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise DataError(path, f"{len(twice)} {what} ids are used twice, such as {twice[0]}; every id must be unique")
    writer.array(sorted_name, ordered)
    writer.array(order, places)


def _group(path: Path, writer: RecordWriter, image_ids: np.ndarray, owners: np.ndarray) -> None:
    """Places of annotations by image: those of image i are by_image[starts[i]:starts[i + 1]]."""
    from utils.progress import Bar  # tqdm takes a tenth of the time of --help

    order = np.argsort(image_ids, kind="stable")
    place = np.searchsorted(image_ids[order], owners)
    place = np.minimum(place, len(image_ids) - 1)
    numbers = np.where(image_ids[order][place] == owners, order[place], len(image_ids))
    by_image = np.argsort(numbers, kind="stable")
    counts = np.bincount(numbers, minlength=len(image_ids) + 1)[: len(image_ids)]
    strays = len(owners) - int(counts.sum())
    if strays:
        Bar.write(f"{path}: {strays} annotations belong to no image of the file and are left out")
    writer.array("by_image", by_image)
    writer.array("starts", np.concatenate([[0], np.cumsum(counts)]))
