"""ReasonSeg: one photograph, its reasoning queries and the polygons of what they mean.

`ROOT/reason_seg/ReasonSeg/{train,val,test}/NAME.jpg` with `NAME.json`, and `explanatory/train.json`. An annotation
holds `text` (1 to 5 wordings of one query), `is_sentence`, and `shapes` (label and polygon points; "flag" shapes are
dropped and "ignore" shapes are left out of evaluation).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.images import read_image
from dataset.masks import paint_shapes
from dataset.sample import AnswerPart, Conversation, Sample, TargetSlot, Turn
from dataset.templates import (
    ANSWERS,
    EVALUATION_ANSWER,
    EVALUATION_PHRASE,
    EVALUATION_SENTENCE,
    EXPLANATION_REQUESTS,
    PHRASE_ANSWERS,
    PHRASE_QUESTIONS,
    SENTENCE_QUESTIONS,
)
from utils.errors import DataError

FOLDER = Path("reason_seg") / "ReasonSeg"
SPLITS = ("train", "val", "test", "test_overall", "test_shortquery", "test_longquery")
IGNORE_VALUE = 255


@dataclass(frozen=True)
class Annotation:
    """What one annotation file says."""

    path: str
    texts: tuple[str, ...]
    is_sentence: bool
    shapes: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Explanation:
    """Text that explains why the targets of a train image are meant."""

    outputs: str


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


def _explanations(root: Path) -> dict[str, Explanation]:
    path = root / FOLDER / "explanatory" / "train.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist, but --explanatory is on; put it there, or switch it off with --explanatory -1"
        )
    found: dict[str, Explanation] = {}
    for entry in _load_json(path):
        if not isinstance(entry, dict) or not entry.get("image") or not str(entry.get("outputs", "")).strip():
            raise DataError(str(path), f'entry {entry!r:.80} needs "image" and a non-empty "outputs"')
        found[Path(entry["image"]).name] = Explanation(str(entry["outputs"]).strip())
    return found


def _annotated_images(root: Path, split: str) -> list[Path]:
    folder = root / FOLDER / split.split("_")[0]
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} does not exist; --dataset_dir must hold reason_seg/ReasonSeg/{folder.name} with .jpg and .json"
        )
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    if not images:
        raise FileNotFoundError(f"{folder} holds no .jpg image; fetch ReasonSeg again or run scripts.make_scenes")
    return images


class ReasonSeg:
    """Records of one or several splits, in sorted order.

    Args:
        root: the folder that holds `reason_seg/`.
        splits: `train`, `val`, `test`, `test_overall` (all of test), `test_shortquery`, `test_longquery`
            (phrases or sentences of test).
        explanatory: chance that a train image with an explanation is asked for the explanation alone;
            negative switches explanations, and the need for their file, off.
        max_queries: most wordings of an image that one training sample asks.

    Raises:
        FileNotFoundError: if a folder or the explanations are missing.
        DataError: if an annotation is malformed.
    """

    def __init__(
        self, root: str | Path, splits: tuple[str, ...], *, explanatory: float = -1.0, max_queries: int = 3
    ) -> None:
        root = Path(root)
        for split in splits:
            if split not in SPLITS:
                raise DataError(f"ReasonSeg|{split}", f"no such split; allowed: {', '.join(SPLITS)}")
        self._explanatory = explanatory
        self._max_queries = max_queries
        self._explanations = _explanations(root) if explanatory >= 0 else {}
        self._records: list[tuple[Path, Annotation]] = []
        for split in splits:
            records = [(path, read_annotation(path.with_suffix(".json"))) for path in _annotated_images(root, split)]
            if split.endswith("query"):
                wanted = split == "test_longquery"
                records = [record for record in records if record[1].is_sentence == wanted]
            self._records += records

    def __len__(self) -> int:
        return len(self._records)

    def _painted(self, index: int) -> tuple[str, np.ndarray, Annotation, np.ndarray]:
        path, annotation = self._records[index]
        image = read_image(path)
        painted = paint_shapes(list(annotation.shapes), image.shape[0], image.shape[1], path=annotation.path)
        return str(path), image, annotation, painted

    def training_sample(self, index: int, rng: np.random.Generator) -> Sample:
        """A sample for training: up to `max_queries` wordings of one image, drawn by `rng` alone.

        Raises:
            DataError: if image or polygons cannot be read, or no pixel belongs to a target.
        """
        path, image, annotation, painted = self._painted(index)
        if not (painted == 1).any():
            raise DataError(
                annotation.path, "no pixel belongs to a target, so there is nothing to learn; add a polygon"
            )
        count = min(self._max_queries, len(annotation.texts))
        texts = [annotation.texts[i] for i in rng.permutation(len(annotation.texts))[:count]]
        explanation = self._explanations.get(Path(path).name)
        kind = self._answer_kind(rng) if explanation else "mask"
        turns = [self._turn(text, annotation.is_sentence, kind, explanation, rng) for text in texts]
        return Sample(
            record=path,
            image=image,
            conversations=tuple(Conversation((turn,)) for turn in turns),
            masks=(painted == 1)[None] if kind != "text" else np.zeros((0, *painted.shape), dtype=bool),
            ignore=painted == IGNORE_VALUE,
            query=texts[0],
        )

    def _answer_kind(self, rng: np.random.Generator) -> str:
        if rng.random() < self._explanatory:
            return "text"
        return "mask" if rng.random() < 0.5 else "both"

    @staticmethod
    def _turn(
        text: str, is_sentence: bool, kind: str, explanation: Explanation | None, rng: np.random.Generator
    ) -> Turn:
        text = text if is_sentence else text.lower()
        answers = ANSWERS if is_sentence else PHRASE_ANSWERS
        before, after = answers[rng.integers(len(answers))]
        before = before.format(text=text)
        if kind == "mask" or explanation is None:
            bank = SENTENCE_QUESTIONS if is_sentence else PHRASE_QUESTIONS
            return Turn(bank[rng.integers(len(bank))].format(text=text), (before, TargetSlot(0), after))
        if kind == "text":
            return Turn(text, (explanation.outputs,))
        request = EXPLANATION_REQUESTS[rng.integers(len(EXPLANATION_REQUESTS))]
        return Turn(f"{text} {request}", (before, TargetSlot(0), f"{after} {explanation.outputs}"))

    def evaluation_sample(self, index: int, *, forced: bool) -> Sample:
        """The benchmark's sample: the image's first wording, asked with the published prompt.

        Args:
            index: record.
            forced: put the answer with the query bank into the prompt; otherwise the model writes it.
        """
        path, image, annotation, painted = self._painted(index)
        text = annotation.texts[0]
        template = EVALUATION_SENTENCE if annotation.is_sentence else EVALUATION_PHRASE
        before, after = EVALUATION_ANSWER
        answer: tuple[AnswerPart, ...] | None = (before, TargetSlot(0), after) if forced else None
        return Sample(
            record=path,
            image=image,
            conversations=(Conversation((Turn(template.format(text=text), answer),)),),
            masks=(painted == 1)[None],
            ignore=painted == IGNORE_VALUE,
            query=text,
        )
