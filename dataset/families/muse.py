"""MUSE: several reasoning questions about a COCO photograph, each with several targets.

`multi_reason_seg/MultiReasonSeg/MUSE_{train,val,test_less,test_many}.json`, each a list of records with `height`,
`width`, `ann_list`, `questions`, `answers` (for each question its targets: `rephrased_name`, `category_name`,
`segmentation`) and perhaps `text_answers` (for each question a text with `{seg}` for each target, or null). The image
is `file_name` of COCO train2014, or else the `coco_url` of one of train2017 or val2017.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dataset.images import read_image
from dataset.masks import decode_segmentation
from dataset.readers import checks
from dataset.readers.checks import MalformedError
from dataset.readers.folder import DataFolder, ImageRoots
from dataset.readers.records import Records, index_list, open_records
from dataset.sample import AnswerPart, Conversation, Protocol, Question, Sample, TargetSlot, Turn
from dataset.source import COCO_IMAGES, TRAIN2014, Benchmark, Expected, Family, FamilyOptions, Source
from dataset.templates import evaluation
from dataset.wording import SLOT, answer_phrases, ask_sentence, fill, sampled
from utils.errors import DataError
from utils.shown import shown

NAME = "MultiReasonSeg"
FOLDER = f"multi_reason_seg/{NAME}"
IMAGES = ("refer_seg/images/mscoco/images", "coco")
SPLITS: dict[str, tuple[str, ...]] = {
    "val": ("val",),
    "test_less": ("test_less",),
    "test_many": ("test_many",),
    "test": ("test_less", "test_many"),
}
"""Files of each split that is scored."""

REPHRASED_CHANCE = 0.9
"""Chance that an answer calls a target by its rephrased name, as published; otherwise by its category."""

_FILE_NAME = re.compile(r"[^/\\\0]*[^/\\\0.][^/\\\0]*")
"""No folders, and not only dots."""


class Muse:
    """A training source: one conversation for each question of a record.

    Args:
        data: the data folder.
        split: of the file.
        max_questions: most questions of a record that one sample asks; all if None.
        instances: say that each target is one object.

    Raises:
        FileNotFoundError: if the file, or images that it names, are missing.
        DataError: if the file is no JSON list.
    """

    def __init__(
        self, data: DataFolder, split: str = "train", *, max_questions: int | None = None, instances: bool = False
    ) -> None:
        path = data.find(f"{FOLDER}/MUSE_{split}.json")
        self._records = open_records(path, data.index, kind="muse", build=index_list(_trainable))
        self._images = ImageRoots(data, *IMAGES)
        _check_images(self._images, self._records, every=False)
        self._max_questions = max_questions
        self._instances = instances

    def __len__(self) -> int:
        return len(self._records)

    def training_sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Questions of record `index`, chosen and worded by `rng` alone.

        Raises:
            DataError: if the record is malformed, its image cannot be read, or none of its targets has a pixel.
        """
        record = self._records[index]
        name = f"{self._records.source}, record {index}"
        image = _read(record, self._images, name)
        count = len(record["questions"])
        masks: list[np.ndarray] = []
        conversations: list[Conversation] = []
        for number in sampled(count, self._max_questions or count, rng):
            question = record["questions"][number]
            first = len(masks)
            masks += _masks(question, record, name)
            slots = [TargetSlot(place) for place in range(first, len(masks))]
            turn = Turn(ask_sentence(question["text"], rng), _drawn_answer(question, slots, rng))
            conversations.append(Conversation((turn,)))
        if masks and not any(mask.any() for mask in masks):
            raise DataError(name, "no pixel belongs to one of its targets, so there is nothing to learn; remove it")
        return Sample(
            record=name,
            image=image,
            conversations=tuple(conversations),
            masks=np.array(masks, dtype=bool).reshape(-1, *image.shape[:2]),
            instances=tuple(np.asarray(mask, dtype=bool)[None] for mask in masks) if self._instances else (),
        )


class MuseBenchmark:
    """The benchmark: every record, one conversation for each of its questions in a fixed wording.

    Args:
        data: the data folder.
        name: `MultiReasonSeg|SPLIT` with a key of `SPLITS`.

    Raises:
        FileNotFoundError: if a file or any image is missing.
        DataError: for an unknown name, a file that is no JSON list, or malformed records.
    """

    scoring = "muse"
    protocols: tuple[Protocol, ...] = ("forced", "generate")

    def __init__(self, data: DataFolder, name: str) -> None:
        dataset, _, split = name.partition("|")
        if dataset != NAME or split not in SPLITS:
            raise DataError(name, f"no such benchmark; allowed: {', '.join(f'{NAME}|{key}' for key in SPLITS)}")
        paths = [data.find(f"{FOLDER}/MUSE_{part}.json") for part in SPLITS[split]]
        self._images = ImageRoots(data, *IMAGES)
        self._places: list[tuple[Records, int]] = []
        for path in paths:
            records = open_records(path, data.index, kind="muse_benchmark", build=index_list(_scorable))
            records.refuse_problems()
            _check_images(self._images, records, every=True)
            self._places += [(records, number) for number in range(len(records))]

    def __len__(self) -> int:
        return len(self._places)

    def evaluation_sample(self, index: int, *, protocol: Protocol) -> Sample:
        """All questions of record `index`, in file order.

        `forced` puts the answer with a slot for each target into the prompt, or with one slot, for an empty mask, where
        a question has no target; `generate` leaves the answer to the model.

        Raises:
            DataError: if the image cannot be read or has another size than the record says.
        """
        records, number = self._places[index]
        record = records[number]
        name = f"{records.source}, record {number}"
        image = _read(record, self._images, name)
        masks: list[np.ndarray] = []
        conversations: list[Conversation] = []
        questions: list[Question] = []
        for question in record["questions"]:
            first = len(masks)
            masks += _masks(question, record, name)
            questions.append(Question(question["text"], tuple(range(first, len(masks)))))
            if not questions[-1].targets:
                masks.append(np.zeros(image.shape[:2], dtype=bool))
            slots = [TargetSlot(place) for place in range(first, len(masks))]
            answer = _fixed_answer(question, slots) if protocol == "forced" else None
            conversations.append(Conversation((Turn(evaluation.SENTENCE.format(text=question["text"]), answer),)))
        return Sample(
            record=name,
            image=image,
            conversations=tuple(conversations),
            masks=np.stack(masks),
            questions=tuple(questions),
        )


def _check_images(images: ImageRoots, records: Records, *, every: bool) -> None:
    images.check(len(records), lambda number: records[number]["image"], str(records.source), every=every)


def _read(record: Mapping[str, Any], images: ImageRoots, name: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a record, of the size that its masks have."""
    image = read_image(images.find(record["image"], name))
    found, wanted = image.shape[:2], (record["height"], record["width"])
    if found != wanted:
        raise DataError(
            name,
            f"its image {record['image']} has {found[0]} x {found[1]} pixels, but the record says "
            f"{wanted[0]} x {wanted[1]}; images and annotations must be of one set",
        )
    return image


def _masks(question: Mapping[str, Any], record: Mapping[str, Any], name: str) -> list[np.ndarray]:
    """(H, W) boolean of each target."""
    return [
        decode_segmentation(target["segmentation"], record["height"], record["width"], path=name)
        for target in question["targets"]
    ]


def _drawn_answer(
    question: Mapping[str, Any], slots: Sequence[TargetSlot], rng: np.random.Generator
) -> tuple[AnswerPart, ...]:
    if question["answer"] is not None:
        return fill(question["answer"], SLOT, slots)
    names = [target["names"][int(rng.random() >= REPHRASED_CHANCE)] for target in question["targets"]]
    return answer_phrases(names, slots, rng)


def _fixed_answer(question: Mapping[str, Any], slots: Sequence[TargetSlot]) -> tuple[AnswerPart, ...]:
    """The text answer if there is one, else "NAME: slot, NAME: slot." with rephrased names."""
    targets = question["targets"]
    if targets and question["answer"] is not None:
        return fill(question["answer"], SLOT, slots)
    parts: list[AnswerPart] = []
    for place, slot in enumerate(slots):
        label = f"{targets[place]['names'][0]}:" if targets else ""
        parts += [f"{', ' if place else ''}{label}", slot]
    return (*parts, ".")


def _trainable(record: Any, name: str) -> dict[str, Any]:
    """What is kept of a record; every question has something to answer."""
    cleaned = _clean(record, name)
    for place, question in enumerate(cleaned["questions"]):
        if not question["targets"] and question["answer"] is None:
            raise MalformedError(f"{name}, question {place} has neither a target nor a text answer: give it one")
    return cleaned


def _scorable(record: Any, name: str) -> dict[str, Any]:
    """What is kept of a record; every mask can be decoded, so that no evaluation stops half-way."""
    cleaned = _clean(record, name)
    for place, question in enumerate(cleaned["questions"]):
        try:
            _masks(question, cleaned, f"{name}, question {place}")
        except DataError as error:
            raise MalformedError(str(error)) from error
    return cleaned


def _clean(record: Any, name: str) -> dict[str, Any]:
    height, width = checks.size(record, name)
    texts, answers, annotations = (checks.get(record, key, list, name) for key in ("questions", "answers", "ann_list"))
    spoken = record.get("text_answers") or [None] * len(texts)
    if not annotations or not texts:
        raise MalformedError(f'{name}: "ann_list" and "questions" must not be empty; remove it')
    if not isinstance(spoken, list) or not len(texts) == len(answers) == len(spoken):
        raise MalformedError(f"{name}: it must have an answer, and a text answer or null, for each of its questions")
    questions = [
        _question(*entry, f"{name}, question {place}")
        for place, entry in enumerate(zip(texts, answers, spoken, strict=True))
    ]
    return {"image": _image(record, name), "height": height, "width": width, "questions": questions}


def _image(record: Mapping[str, Any], name: str) -> str:
    if record.get("file_name"):
        folder, image = "train2014", checks.text(record, "file_name", name)
    else:
        url = checks.text(record, "coco_url", name)
        folder, image = "train2017" if "train2017" in url else "val2017", url.rpartition("/")[2]
    if not _FILE_NAME.fullmatch(image):
        raise MalformedError(f"{name}: its image is {shown(image)}: it must be a file name without folders")
    return f"{folder}/{image}"


def _question(text: Any, answers: Any, spoken: Any, name: str) -> dict[str, Any]:
    """A text answer whose markers are not as many as the targets is left out: their names answer instead."""
    text = checks.text({"question": text}, "question", name)
    values = checks.get({"answers": answers}, "answers", list, name)
    targets = [_target(value, f"{name}, target {place}") for place, value in enumerate(values)]
    answer = _optional_text({"text answer": spoken}, "text answer", name)
    fits = answer is not None and answer.count(SLOT) == len(targets)
    return {"text": text, "answer": answer if fits else None, "targets": targets}


def _target(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not isinstance(value.get("segmentation"), list | dict):
        raise MalformedError(f'{name} is {shown(value)}: it must be an object with a "segmentation"')
    rephrased, category = (_optional_text(value, key, name) for key in ("rephrased_name", "category_name"))
    names = [rephrased or category, category or rephrased]
    if None in names:
        raise MalformedError(f'{name} has no name: give it a "rephrased_name" or a "category_name"')
    return {"names": names, "segmentation": value["segmentation"]}


def _optional_text(record: Mapping[str, Any], key: str, name: str) -> str | None:
    """A text without blanks around it, or None if it is missing, null or empty."""
    return None if record.get(key) is None else checks.get(record, key, str, name).strip() or None


def _source(name: str, data: DataFolder, options: FamilyOptions) -> Source:
    return Muse(data, FAMILY.split(name), instances=options.instances)


def _benchmark(name: str, data: DataFolder, options: FamilyOptions) -> Benchmark:
    return MuseBenchmark(data, name)


FAMILY = Family(
    name="multi_reason_seg",
    sets={
        "MultiReasonSeg|train": Expected(
            ("multi_reason_seg/MultiReasonSeg/MUSE_train.json", f"{TRAIN2014} or coco/train2017"),
            f"MUSE: https://github.com/MaverickRen/PixelLM; {COCO_IMAGES}",
            102_350,
            5,
        )
    },
    chosen="MultiReasonSeg|train",
    about="split of MUSE (multi_reason_seg)",
    source=_source,
    benchmarks={"MultiReasonSeg": ("MultiReasonSeg|val", "MultiReasonSeg|test")},
    benchmark=_benchmark,
)
