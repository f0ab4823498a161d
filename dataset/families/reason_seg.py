"""ReasonSeg: the benchmark, and its training source; `dataset.readers.reason_seg` says what is on disk."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.families.reason_seg_hub import NAME as HUB
from dataset.families.reason_seg_hub import SPLITS as HUB_SPLITS
from dataset.families.reason_seg_hub import ReasonSegHub
from dataset.images import image_size, read_image
from dataset.masks import IGNORE
from dataset.readers.folder import DataFolder
from dataset.readers.reason_seg import TARGET, AnnotatedImage, Annotation, read_explanations, read_split
from dataset.sample import AnswerPart, Conversation, Protocol, Question, Sample, TargetSlot, Turn
from dataset.source import Benchmark, Expected, Family, FamilyOptions, Source, others
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

    def files(self, index: int) -> tuple[Path, ...]:
        """See `dataset.checking.Checkable`."""
        image, annotation = self._records[index]
        return image.path, Path(annotation.path)

    def check(self, index: int) -> bool:
        """See `dataset.checking.Checkable`: every annotation is asked about, one without a target's pixel too."""
        image, annotation = self._records[index]
        image.painted(annotation, image_size(image.path))
        return True

    def without(self, indices: Collection[int]) -> ReasonSeg:
        """See `dataset.checking.Checkable`."""
        left = copy.copy(self)
        left._records = others(self._records, indices)
        return left

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
        painted = record.painted(annotation, image.shape)
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


def refuse_untargeted(annotation: Annotation, painted: np.ndarray) -> None:
    """Raise `DataError` unless a pixel belongs to the target."""
    if not (painted == TARGET).any():
        raise DataError(annotation.path, "no pixel belongs to a target, so there is nothing to learn; add a polygon")


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
        instances: take each target polygon as an object of its own.

    Raises:
        FileNotFoundError: if explanations are wanted and their file is missing.
    """

    def __init__(
        self,
        root: str | Path,
        splits: tuple[str, ...],
        *,
        explanatory: float = -1.0,
        max_queries: int = 3,
        instances: bool = False,
    ) -> None:
        self._images = [image for split in splits for image in read_split(root, split)]
        self._explanatory = explanatory
        self._explanations = read_explanations(Path(root)) if explanatory >= 0 else {}
        self._max_queries = max_queries
        self._instances = instances

    def __len__(self) -> int:
        return len(self._images)

    def files(self, index: int) -> tuple[Path, ...]:
        """See `dataset.checking.Checkable`."""
        return self._images[index].files()

    def check(self, index: int) -> bool:
        """See `dataset.checking.Checkable`: every query must have a target's pixel."""
        record = self._images[index]
        size = image_size(record.path)
        for annotation in record.annotations:
            refuse_untargeted(annotation, record.painted(annotation, size))
        return True

    def without(self, indices: Collection[int]) -> ReasonSegTraining:
        """See `dataset.checking.Checkable`."""
        left = copy.copy(self)
        left._images = others(self._images, indices)
        return left

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
        painted = [record.painted(annotation, image.shape) for annotation in asked]
        for annotation, mask in zip(asked, painted, strict=True):
            refuse_untargeted(annotation, mask)
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
            instances=tuple(record.objects(annotation, mask) for annotation, mask in zip(asked, painted, strict=True))
            if self._instances
            else (),
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


def _source(name: str, data: DataFolder, options: FamilyOptions) -> Source:
    splits = tuple(FAMILY.split(name).split("_"))
    return ReasonSegTraining(
        data.root,
        splits,
        explanatory=options.explanatory,
        max_queries=options.max_questions,
        instances=options.instances,
    )


def _benchmark(name: str, data: DataFolder, options: FamilyOptions) -> Benchmark:
    dataset, _, split = name.partition("|")
    return ReasonSegHub(data.root, split) if dataset == HUB else ReasonSeg(data.root, split)


FAMILY = Family(
    name="reason_seg",
    sets={
        "ReasonSeg|train": Expected(
            ("reason_seg/ReasonSeg/train",), "https://github.com/dvlab-research/LISA, section Dataset", 239
        )
    },
    chosen="ReasonSeg|train",
    about="ReasonSeg splits to train on, joined by _",
    source=_source,
    benchmarks={"ReasonSeg": ("ReasonSeg|val", "ReasonSeg|test"), HUB: tuple(f"{HUB}|{split}" for split in HUB_SPLITS)},
    benchmark=_benchmark,
)
