"""LLaVA-Instruct: conversations of several turns about a COCO photograph, without masks.

`llava_dataset/NAME.json` is a list of records with `image`, a file name of COCO train2017, and `conversations`: turns
with `from` ("human" or "gpt") and `value`, in which `<image>` marks where the photograph belongs. The prompt puts it
first in any case, so the mark is removed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dataset.images import read_image
from dataset.readers import checks
from dataset.readers.checks import MalformedError
from dataset.readers.folder import DataFolder, ImageRoots
from dataset.readers.records import index_list, open_records
from dataset.sample import Conversation, Sample, Turn
from dataset.source import COCO_IMAGES, TRAIN2017, Expected, Family, FamilyOptions, Source

IMAGES = ("coco/train2017", "refer_seg/images/mscoco/images/train2017")
MARK = "<image>"
SPEAKERS = ("human", "gpt")


class Vqa:
    """A training source: one conversation of several turns for each record, in file order.

    Args:
        data: the data folder.
        name: of the file, without `.json`.

    Raises:
        FileNotFoundError: if the file, or images that it names, are missing.
        DataError: if the file is no JSON list.
    """

    def __init__(self, data: DataFolder, name: str = "llava_instruct_150k") -> None:
        self._path = data.find(f"llava_dataset/{name}.json")
        self._images = ImageRoots(data, *IMAGES)
        self._records = open_records(self._path, data.index, kind="vqa", build=index_list(_clean))
        self._images.check(len(self), lambda number: self._records[number]["image"], str(self._path))

    def __len__(self) -> int:
        return len(self._records)

    def training_sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Record `index` word for word; nothing about it is drawn. Masks are (0, H, W).

        Raises:
            DataError: if the record is malformed or its image cannot be read.
        """
        record = self._records[index]
        name = f"{self._path}, record {index}"
        image = read_image(self._images.find(record["image"], name))
        turns = tuple(Turn(question, (answer,)) for question, answer in record["turns"])
        masks = np.zeros((0, *image.shape[:2]), dtype=bool)
        return Sample(record=name, image=image, conversations=(Conversation(turns),), masks=masks)


def _clean(record: Any, name: str) -> dict[str, Any]:
    """Image and (question, answer) pairs of a record."""
    values = checks.get(record, "conversations", list, name)
    if "image" not in record:
        raise MalformedError(f'{name} has no "image": it is about text alone, which cannot be used; remove it')
    turns = [_turn(value, f"{name}, turn {place}") for place, value in enumerate(values)]
    if turns and turns[0][0] != SPEAKERS[0]:
        turns = turns[1:]
    speakers, texts = [speaker for speaker, _ in turns], [text for _, text in turns]
    if speakers != [SPEAKERS[place % 2] for place in range(len(turns))]:
        raise MalformedError(f"{name}: its speakers are {', '.join(speakers):.80}: human and gpt must take turns")
    pairs = list(zip(texts[::2], texts[1::2], strict=False))  # a question at the end has no answer
    if not pairs:
        raise MalformedError(f"{name} has no answered question: give it a human turn and a gpt turn after it")
    return {"image": checks.text(record, "image", name), "turns": pairs}


def _turn(value: Any, name: str) -> tuple[str, str]:
    """Speaker and words, which must be some besides the mark."""
    speaker = checks.text(value, "from", name)
    return speaker, checks.text({"value": checks.text(value, "value", name).replace(MARK, "")}, "value", name)


def _source(name: str, data: DataFolder, options: FamilyOptions) -> Source:
    return Vqa(data, FAMILY.known(name))


FAMILY = Family(
    name="vqa",
    sets={
        "llava_instruct_150k": Expected(
            ("llava_dataset/llava_instruct_150k.json", TRAIN2017),
            f"hub: liuhaotian/LLaVA-Instruct-150K; {COCO_IMAGES}",
            157_712,
            terms="CC BY 4.0, and OpenAI's terms",
        )
    },
    chosen="llava_instruct_150k",
    about="datasets of vqa",
    source=_source,
)
