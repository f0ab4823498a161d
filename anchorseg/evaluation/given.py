"""Masks of any system, as files give them: what `scripts.score` scores.

A prediction names its record and its question. A record is named by its file (`0001.json`, `0001.jpg` and `0001` are
one) or, where a benchmark has no file a record, as its rows in results.json; a question by its number in the record,
from 0, or by its words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, cast, get_args

import numpy as np

from anchorseg.evaluation.predictions import file_name
from anchorseg.evaluation.scoring import Reply
from dataset.images import read_mask
from dataset.masks import decode_segmentation
from dataset.sample import Protocol, Sample
from utils.errors import DataError
from utils.files import read_bytes
from utils.json_text import decode_text, parse_json
from utils.shown import shown

_NAMED = 5
"""Most keys that a message names."""
_SUFFIXES = (".json", ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_COMMON = ("benchmark", "protocol", "question", "query", "segmentation", "size", "score", "category_id", "bbox", "area",
           "id", "iscrowd", "phrase")  # fmt: skip
_OWN = ("record", "index", "masks", "found", "answer", "cut", *_COMMON)
"""What a line of one's own may have: what --list, --save_predictions and COCO write."""
_COCO = ("image_id", *_COMMON)
Question = int | str
"""The number of a question in its record, or its words in lower case."""


def record_key(record: str) -> str:
    """A record's name without folders and without the suffix of a file."""
    name = PurePath(record).name
    return name[: -len(suffix)] if (suffix := PurePath(name).suffix).lower() in _SUFFIXES else name


def words_key(text: str) -> str:
    """The words of a question, in lower case, with one blank between each two."""
    return " ".join(text.split()).lower()


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a file says about one question.

    Attributes:
        place: file and line, for messages.
        masks: segmentations of any COCO form, or paths of PNG files.
        found: whether there is such an object; None: if a mask has a pixel.
        answer: the system's words, or None.
        cut: whether they were cut off.
        about: record and question, for messages.
        queries: the words that the file has for the question, in lower case.
    """

    place: str
    masks: tuple[object, ...]
    found: bool | None = None
    answer: str | None = None
    cut: bool = False
    about: str = ""
    queries: tuple[str, ...] = ()

    def reply(self, size: tuple[int, int]) -> Reply:
        """The reply about an image of (height, width).

        Raises:
            DataError: if a mask cannot be decoded or has another size.
        """
        masks = np.zeros((len(self.masks), *size), bool)
        for number, mask in enumerate(self.masks):
            masks[number] = self._decoded(mask, size)
        found = bool(masks.any()) if self.found is None else self.found
        return Reply(masks=masks, found=found, answer=self.answer, cut=self.cut)

    def _decoded(self, mask: object, size: tuple[int, int]) -> np.ndarray:
        if not isinstance(mask, Path):
            return decode_segmentation(mask, *size, path=self.place)
        found = read_mask(mask)
        if found.shape != size:
            raise DataError(
                mask, f"it has {found.shape[0]} x {found.shape[1]} pixels, but the image has {size[0]} x {size[1]}; "
                "write the mask in the size of the image"
            )  # fmt: skip
        return found


@dataclass(frozen=True)
class Predictions:
    """Predictions by record and question.

    Attributes:
        path: file or folder.
        by_question: by key of the record, then by number or words of the question.
        by_index: by the number of the sample in its benchmark and that of the question, with the key of the record.
        by_file: by the name of a mask's file, RECORD or RECORD_QUESTION.
        protocol: how the questions were asked, if the file says so.
        benchmark: whose questions they are, if the file says so.
    """

    path: Path
    by_question: dict[str, dict[Question, Given]] = field(default_factory=dict)
    by_index: dict[tuple[int, int], tuple[str, Given]] = field(default_factory=dict)
    by_file: dict[str, Given] = field(default_factory=dict)
    protocol: Protocol | None = None
    benchmark: str | None = None

    @property
    def all(self) -> list[Given]:
        """Every prediction, in the order of the file."""
        named = [given for questions in self.by_question.values() for given in questions.values()]
        return [*named, *(given for _, given in self.by_index.values()), *self.by_file.values()]

    def find(self, index: int, number: int, sample: Sample) -> Given | None:
        """The prediction for question `number` of sample `index`.

        Raises:
            DataError: if two predictions are for it, or the one for it is about another record or other words.
        """
        key, words = record_key(sample.record), words_key(sample.questions[number].text)
        named = self.by_question.get(key, {})
        files = [f"{file_name(key)}_{number}", *([file_name(key)] if number == 0 else [])]
        found = [named[question] for question in (number, words) if question in named]
        found += [self.by_file[file] for file in files if file in self.by_file]
        if (indexed := self.by_index.get((index, number))) is not None:
            if indexed[0] != key:
                raise DataError(
                    indexed[1].place, f"sample {index} of the benchmark is {key}, but the prediction is about "
                    f"{indexed[0]}; it was made on other data"
                )  # fmt: skip
            found.append(indexed[1])
        if len(found) > 1:
            raise DataError(found[1].place, f"question {number} of {key} has a prediction already, at {found[0].place}")
        for said in found[0].queries if found else ():
            if said != words:
                raise DataError(
                    found[0].place, f'question {number} of {key} is {shown(words)}, but its "query" is {shown(said)}; '
                    "number the questions as --list does, or leave the number or the words out"
                )  # fmt: skip
        return found[0] if found else None


def read_predictions(path: str | Path) -> Predictions:
    """Predictions of a file of JSON lines, a JSON list, COCO's results among them, or a folder of PNG masks.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        DataError: if it cannot be read, or two predictions are about the same question.
    """
    path = Path(path)
    return _read_folder(path) if path.is_dir() else _read_file(path)


def _read_folder(path: Path) -> Predictions:
    """Masks by the name of their file: RECORD.png, or RECORD_QUESTION.png with the number of the question."""
    found = Predictions(path)
    for file in sorted(path.iterdir()):
        if file.suffix.lower() == ".png" and not file.name.startswith("."):
            found.by_file[file.stem] = Given(place=str(file), masks=(file,), about=file.stem)
    if not found.by_file:
        raise DataError(path, "the folder holds no .png; give a folder of masks RECORD.png or RECORD_QUESTION.png")
    return found


def _read_file(path: Path) -> Predictions:
    text = _text(path)
    entries = list(_lines(text, path) if not text.lstrip().startswith("[") else _list(text, path))
    if not entries:
        raise DataError(path, "it holds no prediction; give a JSON line for each question")
    protocol = cast(Protocol | None, _one_name(entries, "protocol", get_args(Protocol)))
    found = Predictions(path, protocol=protocol, benchmark=_one_name(entries, "benchmark"))
    objects: dict[tuple[str, Question], list[Given]] = {}
    for place, content in entries:
        if "image" in content and ("targets" in content or "error" in content):
            _add(found, _of_predict(content, place), place)
        elif "image_id" in content:
            _refuse_unknown(content, _COCO, place)
            key = (_record(content, "image_id", place), _question(content, place))
            objects.setdefault(key, []).append(
                Given(place=place, masks=_one_mask(content, place), queries=_queries(content, place))
            )
        else:
            _add(found, content, place)
    for (record, question), parts in objects.items():
        given = Given(
            place=parts[0].place,
            masks=tuple(mask for part in parts for mask in part.masks),
            about=_about(record, question),
            queries=tuple(words for part in parts for words in part.queries),
        )
        _put(found, record, question, given)
    return found


def _one_name(entries: list[tuple[str, Mapping[str, Any]]], key: str, allowed: tuple[str, ...] = ()) -> str | None:
    """What the entries that name a benchmark or protocol call it."""
    first: str | None = None
    for place, content in entries:
        name = content.get(key)
        if name is None:
            continue
        if not isinstance(name, str) or (allowed and name not in allowed):
            words = f"one of {', '.join(allowed)}" if allowed else "a name"
            raise DataError(place, f'"{key}" is {shown(name)}; it must be {words}, or left out')
        if first is not None and name != first:
            raise DataError(place, f'"{key}" is {shown(name)}, but {shown(first)} before; give each a file of its own')
        first = name
    return first


def _text(path: Path) -> str:
    try:
        return decode_text(read_bytes(path))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(path, str(error)) from error


def _lines(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    _refuse_one_object(text, path)
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            yield place, _object(_parsed(line, place), place)


def _refuse_one_object(text: str, path: Path) -> None:
    """Refuse an object over several lines, and a whole COCO data set."""
    first = text.strip().split("\n", 1)[0]
    try:
        parse_json(first.encode("utf-8"), decode_text)
    except ValueError:
        try:
            whole = parse_json(text.encode("utf-8"), decode_text)
        except ValueError:
            return  # no JSON at all: the line that is none is named
        if isinstance(whole, dict) and not isinstance(whole.get("annotations"), list):
            raise DataError(
                path, "it is one object over several lines; give a list, or JSON lines, each an object of one line"
            ) from None
        _object(whole, str(path))


def _list(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, value in enumerate(_parsed(text, str(path))):
        place = f"{path}, entry {number}"
        yield place, _object(value, place)


def _parsed(text: str, place: str) -> Any:
    try:
        return parse_json(text.encode("utf-8"), decode_text)
    except ValueError as error:
        raise DataError(place, str(error)) from error


def _object(value: object, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(place, f'it is {shown(value)}; a prediction is an object with "record", "question" and "masks"')
    if isinstance(value.get("annotations"), list):
        raise DataError(
            place, 'it is a whole COCO data set, but must be a list or JSON lines; give a list such as its '
            '"annotations", with the names of the images as "image_id"'
        )  # fmt: skip
    return value


def _refuse_unknown(content: Mapping[str, Any], allowed: tuple[str, ...], place: str) -> None:
    unknown = [shown(name) for name in content if name not in allowed]
    if unknown:
        raise DataError(
            place, f"it has {', '.join(unknown[:_NAMED])}, which is not read; leave that out (allowed: "
            f"{', '.join(allowed)})"
        )  # fmt: skip


def _of_predict(content: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    """A line of the answers.jsonl of scripts.predict as one of one's own; it numbers questions by its own order."""
    if content.get("error") is not None:
        raise DataError(
            place, f"it is of an image that could not be used, {shown(content['error'])}; mend the image and predict "
            "again, or remove the line"
        )  # fmt: skip
    targets = content.get("targets")
    if not isinstance(targets, list) or not all(isinstance(target, dict) for target in targets):
        raise DataError(place, f'"targets" is {shown(targets)}; it must be a list of objects with "segmentation"')
    return {
        "record": content.get("image"),
        "question": content.get("query"),
        "masks": [mask for target in targets for mask in _one_mask(target, place)],
        "answer": content.get("text"),
        "cut": content.get("complete") is False,
    }


def _record(content: Mapping[str, Any], name: str, place: str) -> str:
    record = content.get(name)
    if isinstance(record, bool) or not isinstance(record, str | int) or not str(record).strip():
        raise DataError(place, f'"{name}" is {shown(record)}; it must be the name of a record, such as its file')
    return record_key(str(record))


def _question(content: Mapping[str, Any], place: str) -> Question:
    question = content.get("question", content.get("query", 0))
    if isinstance(question, str) and question.strip():
        return words_key(question)
    if isinstance(question, int) and not isinstance(question, bool) and question >= 0:
        return question
    raise DataError(
        place, f'"question" is {shown(question)}; it must be its number in the record, from 0, or its words'
    )


def _queries(content: Mapping[str, Any], place: str) -> tuple[str, ...]:
    query = content.get("query")
    if query is None:
        return ()
    if not isinstance(query, str):
        raise DataError(place, f'"query" is {shown(query)}; it must be the words of the question, or left out')
    return (words_key(query),)


def _about(record: str, question: Question) -> str:
    return f"{shown(record)}, question {shown(question)}"


def _one_mask(content: Mapping[str, Any], place: str) -> tuple[object, ...]:
    """The mask of `segmentation`; none where it is null or []."""
    if "segmentation" not in content:
        raise DataError(place, 'it has no "segmentation"; give run lengths or polygons, or [] for no target')
    return () if content["segmentation"] in (None, []) else (content["segmentation"],)


def _masks(content: Mapping[str, Any], place: str) -> tuple[object, ...]:
    """The masks of `masks` or `segmentation`, of which one must be there."""
    masks = content.get("masks")
    if masks is not None and not isinstance(masks, list):
        raise DataError(place, f'"masks" is {shown(masks)}; it must be a list of run lengths or polygons')
    if "masks" not in content and "segmentation" not in content:
        raise DataError(
            place, 'it has neither "masks" nor "segmentation"; give a list of run lengths or polygons, or [] for no '
            "target"
        )  # fmt: skip
    one = _one_mask(content, place) if "segmentation" in content else ()
    if masks is not None and one:
        raise DataError(place, 'it has both "masks" and "segmentation"; give one of them')
    return one if masks is None else tuple(masks)


def _add(found: Predictions, content: Mapping[str, Any], place: str) -> None:
    """Put a prediction of one question in."""
    _refuse_unknown(content, _OWN, place)
    record, question, index = _record(content, "record", place), _question(content, place), content.get("index")
    kinds = {"found": (bool, "true or false"), "answer": (str, "a text"), "cut": (bool, "true or false")}
    for name, (kind, words) in kinds.items():
        if content.get(name) is not None and not isinstance(content[name], kind):
            raise DataError(place, f'"{name}" is {shown(content[name])}; it must be {words}, or left out')
    given = Given(
        place=place,
        masks=_masks(content, place),
        found=content.get("found"),
        answer=content.get("answer"),
        cut=bool(content.get("cut")),
        about=_about(record, question),
        queries=_queries(content, place),
    )
    if index is None:
        _put(found, record, question, given)
        return
    if not isinstance(index, int) or isinstance(index, bool) or index < 0 or not isinstance(question, int):
        raise DataError(
            place, f'"index" is {shown(index)} and "question" {shown(question)}; they must be the numbers of a sample '
            "and of its question, from 0"
        )  # fmt: skip
    if found.by_index.setdefault((index, question), (record, given))[1] is not given:
        raise DataError(place, f"question {question} of sample {index} has a prediction already")


def _put(found: Predictions, record: str, question: Question, given: Given) -> None:
    if (before := found.by_question.setdefault(record, {}).setdefault(question, given)) is not given:
        raise DataError(
            given.place, f"question {shown(question)} of {record} has a prediction already, at {before.place}"
        )
