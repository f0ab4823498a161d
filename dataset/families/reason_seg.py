"""ReasonSeg: one photograph, its reasoning queries and the polygons of what they mean.

`ROOT/reason_seg/ReasonSeg/{train,val,test}/NAME.jpg` with `NAME.json`, and `explanatory/train.json`. An annotation
holds `text` (1 to 5 wordings of one query), `is_sentence`, and `shapes` (label and polygon points; "flag" shapes are
dropped and "ignore" shapes are left out of evaluation). An image may have further queries in `NAME.2.json`,
`NAME.3.json`, ..., which the published sets do not use.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.images import read_image
from dataset.masks import IGNORE, paint_shapes
from dataset.sample import AnswerPart, Conversation, Protocol, Question, Sample, TargetSlot, Turn
from dataset.templates import evaluation
from dataset.templates.reason_seg import (
    ANSWERS,
    EXPLANATION_REQUESTS,
    PHRASE_ANSWERS,
    PHRASE_QUESTIONS,
    SENTENCE_QUESTIONS,
)
from dataset.wording import draw
from utils.errors import DataError

FOLDER = Path("reason_seg") / "ReasonSeg"
SPLITS = ("train", "val", "test", "test_overall", "test_shortquery", "test_longquery")
TARGET = 1


@dataclass(frozen=True, eq=False)
class Annotation:
    """What one annotation file says."""

    path: str
    texts: tuple[str, ...]
    is_sentence: bool
    shapes: tuple[dict[str, Any], ...]


def _load_json(path: Path) -> Any:
    """Parse UTF-8, or cp1252, in which some published files are written."""
    if not path.is_file():
        raise DataError(str(path), "the annotation file does not exist; every .jpg needs a .json of the same name")
    data = path.read_bytes()
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return json.loads(data.decode(encoding))
        except UnicodeDecodeError:
            continue
        except json.JSONDecodeError as error:
            raise DataError(str(path), f"this is not valid JSON ({error.msg}, line {error.lineno})") from None
    raise DataError(str(path), "the text is neither UTF-8 nor cp1252")


def read_annotation(path: Path) -> Annotation:
    """Read and check one annotation file.

    Raises:
        DataError: naming the file and what is wrong with it.
    """
    content = _load_json(path)
    if not isinstance(content, dict):
        raise DataError(str(path), "an annotation is a JSON object with text, is_sentence and shapes")
    texts, shapes = content.get("text"), content.get("shapes")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise DataError(str(path), '"text" must be a list of at least one string')
    if not all(text.strip() for text in texts):
        raise DataError(str(path), '"text" holds an empty query; give every query some words')
    if not isinstance(shapes, list):
        raise DataError(str(path), '"shapes" is missing; give a list of labelled polygons')
    return Annotation(
        str(path), tuple(text.strip() for text in texts), bool(content.get("is_sentence", False)), tuple(shapes)
    )


def _explanations(root: Path) -> dict[str, str]:
    """Explanation by the name of its annotation file."""
    path = root / FOLDER / "explanatory" / "train.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist, but --explanatory is on; put it there, or switch it off with --explanatory -1"
        )
    found: dict[str, str] = {}
    for entry in _load_json(path):
        if not isinstance(entry, dict) or not entry.get("image") or not str(entry.get("outputs", "")).strip():
            raise DataError(str(path), f'entry {entry!r:.80} needs "image" and a non-empty "outputs"')
        name = entry.get("json") or Path(entry["image"]).with_suffix(".json").name
        found[Path(name).name] = str(entry["outputs"]).strip()
    return found


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and the annotation of each query about it."""

    path: Path
    annotations: tuple[Annotation, ...]

    def painted(self, annotation: Annotation, image: np.ndarray) -> np.ndarray:
        """(H, W) uint8 of an annotation: 1 target, 255 ignore."""
        return paint_shapes(list(annotation.shapes), image.shape[0], image.shape[1], path=annotation.path)


def _annotations(image: Path, names: dict[str, list[Path]]) -> tuple[Annotation, ...]:
    """Those of NAME.json, which must be there, and of NAME.2.json, NAME.3.json, ... if there are any."""
    first = image.with_suffix(".json")
    others = [path for path in names.get(image.stem, []) if path != first]
    return tuple(read_annotation(path) for path in (first, *others))


def read_split(root: str | Path, split: str) -> list[AnnotatedImage]:
    """Images of a split in sorted order, with their annotations.

    Args:
        root: the folder that holds `reason_seg/`.
        split: `train`, `val`, `test`, `test_overall` (all of test), `test_shortquery`, `test_longquery` (phrases or
            sentences of test).

    Raises:
        FileNotFoundError: if the folder is missing or empty.
        DataError: for an unknown split or a malformed annotation.
    """
    if split not in SPLITS:
        raise DataError(f"ReasonSeg|{split}", f"no such split; allowed: {', '.join(SPLITS)}")
    folder = Path(root) / FOLDER / split.split("_")[0]
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} does not exist; --dataset_dir must hold reason_seg/ReasonSeg/{folder.name} with .jpg and .json"
        )
    files = sorted(folder.iterdir())
    images = [path for path in files if path.suffix.lower() in (".jpg", ".jpeg")]
    if not images:
        raise FileNotFoundError(f"{folder} holds no .jpg image; fetch ReasonSeg again or run scripts.make_scenes")
    names: dict[str, list[Path]] = {}
    for path in files:
        if path.suffix == ".json":
            names.setdefault(path.stem.rpartition(".")[0] or path.stem, []).append(path)
    found = [AnnotatedImage(path, _annotations(path, names)) for path in images]
    if not split.endswith("query"):
        return found
    wanted = split == "test_longquery"
    kept = [AnnotatedImage(i.path, tuple(a for a in i.annotations if a.is_sentence == wanted)) for i in found]
    return [image for image in kept if image.annotations]


class ReasonSeg:
    """The benchmark: one sample for each annotation of a split.

    Args:
        root: the folder that holds `reason_seg/`.
        split: see `read_split`, which also says what is raised.
    """

    scoring = "reason"
    protocols: tuple[Protocol, ...] = ("forced", "generate")

    def __init__(self, root: str | Path, split: str) -> None:
        self._records = [(image, annotation) for image in read_split(root, split) for annotation in image.annotations]

    def __len__(self) -> int:
        return len(self._records)

    def evaluation_sample(self, index: int, *, protocol: Protocol) -> Sample:
        """The first wording of an annotation, asked with the published prompt.

        Args:
            index: record.
            protocol: `forced` puts the answer with the query bank into the prompt; in `generate` the model writes it.

        Raises:
            DataError: if image or polygons cannot be read.
        """
        record, annotation = self._records[index]
        image = read_image(record.path)
        painted = record.painted(annotation, image)
        text = annotation.texts[0]
        template = evaluation.SENTENCE if annotation.is_sentence else evaluation.PHRASE
        before, after = evaluation.ANSWER
        answer: tuple[AnswerPart, ...] | None = (before, TargetSlot(0), after) if protocol == "forced" else None
        return Sample(
            record=annotation.path,
            image=image,
            conversations=(Conversation((Turn(template.format(text=text), answer),)),),
            masks=(painted == TARGET)[None],
            ignore=(painted == IGNORE)[None],
            questions=(Question(text),),
        )


@dataclass(frozen=True)
class _Query:
    """One wording of an annotation, and how it is to be answered: "mask", "both" or "text"."""

    annotation: Annotation
    text: str
    kind: str
    explanation: str

    def turn(self, mask: int, rng: np.random.Generator) -> Turn:
        """Question and answer in wordings drawn by `rng`; `mask` is the target's index."""
        is_sentence = self.annotation.is_sentence
        text = self.text if is_sentence else self.text.lower()
        if self.kind == "text":
            return Turn(text, (self.explanation,))
        before, after = draw(ANSWERS if is_sentence else PHRASE_ANSWERS, rng)
        before = before.format(text=text)
        if self.kind == "mask":
            template = draw(SENTENCE_QUESTIONS if is_sentence else PHRASE_QUESTIONS, rng)
            return Turn(template.format(text=text), (before, TargetSlot(mask), after))
        question = f"{text} {draw(EXPLANATION_REQUESTS, rng)}"
        return Turn(question, (before, TargetSlot(mask), f"{after} {self.explanation}"))


class ReasonSegTraining:
    """The training source: one sample for each image of the splits.

    Args:
        root: the folder that holds `reason_seg/`.
        splits: see `read_split`, which also says what is raised.
        explanatory: chance that a query with an explanation is answered by the explanation alone; negative switches
            explanations, and the need for their file, off.
        max_queries: most queries and wordings of an image that one sample asks.

    Raises:
        FileNotFoundError: if explanations are wanted and their file is missing.
    """

    def __init__(
        self, root: str | Path, splits: tuple[str, ...], *, explanatory: float = -1.0, max_queries: int = 3
    ) -> None:
        self._images = [image for split in splits for image in read_split(root, split)]
        self._explanatory = explanatory
        self._explanations = _explanations(Path(root)) if explanatory >= 0 else {}
        self._max_queries = max_queries

    def __len__(self) -> int:
        return len(self._images)

    def training_sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Up to `max_queries` conversations about one image, drawn by `rng` alone: first different queries, then
        further wordings of them.

        Raises:
            DataError: if image or polygons cannot be read, or no pixel belongs to a target.
        """
        record = self._images[index]
        image = read_image(record.path)
        queries = self._queries(record, rng)
        asked = list(dict.fromkeys(query.annotation for query in queries if query.kind != "text"))
        painted = [record.painted(annotation, image) for annotation in asked]
        for annotation, mask in zip(asked, painted, strict=True):
            if not (mask == TARGET).any():
                raise DataError(
                    annotation.path, "no pixel belongs to a target, so there is nothing to learn; add a polygon"
                )
        place = {annotation: number for number, annotation in enumerate(asked)}
        turns = [query.turn(place.get(query.annotation, -1), rng) for query in queries]
        empty = np.zeros((0, *image.shape[:2]), dtype=bool)
        return Sample(
            record=str(record.path),
            image=image,
            conversations=tuple(Conversation((turn,)) for turn in turns),
            masks=np.stack([mask == TARGET for mask in painted]) if painted else empty,
            ignore=np.stack([mask == IGNORE for mask in painted]) if painted else None,
            questions=(Question(queries[0].text),),
        )

    def _queries(self, record: AnnotatedImage, rng: np.random.Generator) -> list[_Query]:
        order = [record.annotations[i] for i in rng.permutation(len(record.annotations))]
        texts = {annotation: list(rng.permutation(annotation.texts)) for annotation in order}
        kinds = {annotation: self._kind(annotation, rng) for annotation in order}
        rounds = range(max(len(wordings) for wordings in texts.values()))
        found = [
            _Query(annotation, str(texts[annotation][number]), kinds[annotation], self._explanation(annotation))
            for number in rounds
            for annotation in order
            if number < len(texts[annotation])
        ]
        return found[: self._max_queries]

    def _explanation(self, annotation: Annotation) -> str:
        return self._explanations.get(Path(annotation.path).name, "")

    def _kind(self, annotation: Annotation, rng: np.random.Generator) -> str:
        if not self._explanation(annotation):
            return "mask"
        if rng.random() < self._explanatory:
            return "text"
        return "mask" if rng.random() < 0.5 else "both"
