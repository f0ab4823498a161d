"""LISA++: instances, reasoned answers, dialogues and captions about COCO train2017, with masks inside the text.

`reason_seg_plus/LISA_Plus_*.json`, each a list of records. All kinds hold masks by id, but under differing keys (see
`KINDS`), as polygons in pixels of the image; what a text says about them is in the markup of
`dataset.families.lisa_markup`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataset.families.lisa_markup import Mark, Piece, dialogue, parse, plain, with_slots
from dataset.images import read_image
from dataset.masks import decode_segmentation
from dataset.readers import checks
from dataset.readers.checks import MalformedError
from dataset.readers.folder import DataFolder, ImageRoots
from dataset.readers.records import index_list, open_records
from dataset.sample import AnswerPart, Conversation, Sample, TargetSlot, Turn
from dataset.source import COCO_IMAGES, TRAIN2017, Expected, Family, FamilyOptions, Source
from dataset.wording import answer_phrases, ask_sentence
from utils.errors import DataError
from utils.shown import shown

FOLDER = "reason_seg_plus"
IMAGES = ("refer_seg/images/mscoco/images/train2017", "coco/train2017")

REQUESTS = ("segment", "outline", "delineate", "highlight", "mask of", "mask for", "masks of", "masks for")
"""Words by which a question itself asks for masks."""

UNNAMED = "object"
"""What an object without a label is called."""

Pairs = list[tuple[str, tuple[Piece, ...]]]
"""Questions, and their answers with marks."""

Slots = Mapping[str, TargetSlot]
Rng = np.random.Generator


@dataclass(frozen=True)
class Kind:
    """How records of one file are read and worded.

    Attributes:
        file: its name.
        image: key of the image's file name.
        shapes: key of the masks by id.
        pairs: (record, its name) to questions and answers; raises `MalformedError`.
        ask: words a question.
        answer: words an answer, given the slots of the objects that have a mask.
    """

    file: str
    image: str
    shapes: str
    pairs: Callable[[Mapping[str, Any], str], Pairs]
    ask: Callable[[str, Rng], str]
    answer: Callable[[Sequence[Piece], Slots, Rng], tuple[AnswerPart, ...]]

    def clean(self, record: Any, name: str) -> dict[str, Any]:
        """Image, pairs, and the polygons of the objects that answers name.

        Raises:
            MalformedError: if a key is missing or of the wrong type, or no object named has a mask.
        """
        image, shapes = checks.text(record, self.image, name), checks.get(record, self.shapes, dict, name)
        pairs = self.pairs(record, name)
        named = [piece.id for _, answer in pairs for piece in answer if isinstance(piece, Mark)]
        rings = {identity: polygons(shapes.get(identity), f"{name}, object {identity}") for identity in named}
        if not any(rings.values()):
            raise MalformedError(f"{name}: no object that its answer names has a mask, so there is nothing to learn")
        return {"image": image, "pairs": pairs, "rings": {identity: r for identity, r in rings.items() if r}}


def polygons(value: Any, name: str) -> list[list[float]]:
    """Rings x0, y0, x1, y1, ... of a mask, which together are one region; those of less than three points are left out.

    Args:
        value: a list of [x, y] pairs or one flat ring (one polygon), a list of lists of pairs (several), either of them
            under "polygon" or "points" of an object, or nothing.
        name: of the object, for messages.

    Raises:
        MalformedError: if it has none of these forms.
    """
    if isinstance(value, Mapping):
        value = value.get("polygon") or value.get("points")
    if value is None:
        return []
    if _is_flat(value):
        rings = [value]
    elif _is_pairs(value):
        rings = [_flat(value)]
    elif isinstance(value, list) and all(map(_is_pairs, value)):
        rings = [_flat(ring) for ring in value]
    else:
        raise MalformedError(
            f"{name}: its mask is {shown(value)}: it must be [x, y] pairs, a flat ring, or a list of lists of pairs"
        )
    return [ring for ring in rings if len(ring) >= 6]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_flat(value: Any) -> bool:
    return isinstance(value, list) and len(value) % 2 == 0 and all(map(_is_number, value))


def _is_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(_is_flat(pair) and len(pair) == 2 for pair in value)


def _flat(pairs: list[list[float]]) -> list[float]:
    return [coordinate for pair in pairs for coordinate in pair]


def _objects(record: Mapping[str, Any], name: str) -> Pairs:
    """The question, and the objects of "ID" as its whole answer."""
    shapes = checks.get(record, "points", dict, name)
    identities = dict.fromkeys(str(identity) for identity in checks.get(record, "ID", list, name))
    answer = tuple(Mark(identity, _label(shapes.get(identity))) for identity in identities)
    return [(plain(checks.text(record, "English Question", name)), answer)]


def _label(shape: Any) -> str:
    label = shape.get("label name") if isinstance(shape, Mapping) else None
    return label.strip() or UNNAMED if isinstance(label, str) else UNNAMED


def _question_and_answer(record: Mapping[str, Any], name: str) -> Pairs:
    question, answer = (checks.text(record, key, name) for key in ("English Question", "English Answer"))
    return [(plain(question), parse(answer))]


def _dialogue(record: Mapping[str, Any], name: str) -> Pairs:
    return [
        (plain(question), parse(answer)) for question, answer in dialogue(checks.text(record, "output", name), name)
    ]


def _as_it_is(question: str, rng: Rng) -> str:
    return question


def _with_request(question: str, rng: Rng) -> str:
    words = question.lower()
    return question if any(request in words for request in REQUESTS) else ask_sentence(question, rng)


def _in_text(answer: Sequence[Piece], slots: Slots, rng: Rng) -> tuple[AnswerPart, ...]:
    return with_slots(answer, slots)


def _by_label(answer: Sequence[Piece], slots: Slots, rng: Rng) -> tuple[AnswerPart, ...]:
    marks = [piece for piece in answer if isinstance(piece, Mark) and piece.id in slots]
    return answer_phrases([mark.label for mark in marks], [slots[mark.id] for mark in marks], rng)


KINDS: dict[str, Kind] = {
    "instance_seg": Kind("LISA_Plus_Instance_Seg.json", "img_path", "points", _objects, _as_it_is, _by_label),
    "cot": Kind("LISA_Plus_COT.json", "image_path", "info", _question_and_answer, _with_request, _in_text),
    "conversations": Kind("LISA_Plus_Conversations.json", "img_pth", "info", _dialogue, _as_it_is, _in_text),
    "caption": Kind("LISA_Plus_Caption.json", "image_path", "info", _question_and_answer, _as_it_is, _in_text),
}


class LisaPlus:
    """A training source: one conversation for each record, in file order.

    Args:
        data: the data folder.
        kind: a key of `KINDS`.
        max_questions: most turns of a dialogue; it is cut after them. The other kinds have one turn.

    Raises:
        FileNotFoundError: if the file, or images that it names, are missing.
        DataError: for an unknown kind, or a file that is no JSON list.
    """

    def __init__(self, data: DataFolder, kind: str, *, max_questions: int) -> None:
        if kind not in KINDS:
            raise DataError(f"{FOLDER}: {kind}", f"no such kind of LISA++; allowed: {', '.join(KINDS)}")
        self._kind, self._max_questions = KINDS[kind], max_questions
        self._path = data.root / FOLDER / self._kind.file
        if not self._path.is_file():
            raise FileNotFoundError(
                f"{self._path} does not exist; the hub calls it data.json, so rename it and put it there (docs/data.md)"
            )
        self._images = ImageRoots(data, *IMAGES)
        build = index_list(self._kind.clean)
        self._records = open_records(self._path, data.index, kind=f"lisa_plus_{kind}", build=build)
        self._images.check(len(self), lambda number: self._records[number]["image"], str(self._path))

    def __len__(self) -> int:
        return len(self._records)

    def training_sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Record `index`; masks in the order in which its answers name them, each once, wordings drawn by `rng` alone.

        Objects without a mask, or without a pixel inside the image, stay words.

        Raises:
            DataError: if the record is malformed, its image cannot be read, or none of its objects has a pixel.
        """
        record = self._records[index]
        name = f"{self._path}, record {index}"
        image = read_image(self._images.find(record["image"], name))
        pairs = [(question, _restored(answer)) for question, answer in record["pairs"][: self._max_questions]]
        masks = _masks(record["rings"], [answer for _, answer in pairs], image.shape[:2], name)
        slots = {identity: TargetSlot(number) for number, identity in enumerate(masks)}
        turns = tuple(Turn(self._kind.ask(q, rng), self._kind.answer(answer, slots, rng)) for q, answer in pairs)
        return Sample(
            record=name,
            image=image,
            conversations=(Conversation(turns),),
            masks=np.array(list(masks.values()), dtype=bool).reshape(-1, *image.shape[:2]),
        )


def _restored(pieces: list[Any]) -> tuple[Piece, ...]:
    """Pieces from the index, where a mark is a list."""
    return tuple(piece if isinstance(piece, str) else Mark(*piece) for piece in pieces)


def _masks(
    rings: Mapping[str, Any], answers: Sequence[tuple[Piece, ...]], size: tuple[int, ...], name: str
) -> dict[str, np.ndarray]:
    """(H, W) boolean of each object that answers name, by id and in order, without the empty ones."""
    height, width = size
    named = [piece.id for answer in answers for piece in answer if isinstance(piece, Mark) and piece.id in rings]
    masks = {
        identity: decode_segmentation(rings[identity], height, width, path=f"{name}, object {identity}")
        for identity in dict.fromkeys(named)
    }
    found = {identity: mask for identity, mask in masks.items() if mask.any()}
    if masks and not found:
        raise DataError(
            name, f"no mask of it has a pixel inside its image of {height} x {width}, so there is nothing to learn"
        )
    return found


def _source(name: str, data: DataFolder, options: FamilyOptions) -> Source:
    return LisaPlus(data, FAMILY.known(name), max_questions=options.max_questions)


def _expected(file: str, records: int) -> Expected:
    hub = "hub: the four LISA_Plus_* datasets of Senqiao; each file is called data.json there: rename it."
    return Expected((f"reason_seg_plus/LISA_Plus_{file}.json", TRAIN2017), f"{hub} {COCO_IMAGES}", records, 5)


FAMILY = Family(
    name="reason_seg_plus",
    sets={
        "instance_seg": _expected("Instance_Seg", 58_500),
        "cot": _expected("COT", 3_040),
        "conversations": _expected("Conversations", 2_650),
        "caption": _expected("Caption", 1_340),
    },
    chosen="instance_seg||cot||conversations||caption",
    about="kinds of LISA++ (reason_seg_plus)",
    source=_source,
)
