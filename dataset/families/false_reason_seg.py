"""ReasonSeg with false premises: queries about what the photograph does not show, answered in plain words.

The layout is ReasonSeg's in `reason_seg/fpReasonSeg/`, or in ReasonSeg's own folder; every annotation has
`false_premise_QA` besides, a list of `[question, is_sentence, answer]`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataset.families.reason_seg import refuse_untargeted
from dataset.images import read_image
from dataset.masks import IGNORE
from dataset.readers.folder import DataFolder
from dataset.readers.reason_seg import FOLDER, TARGET, AnnotatedImage, Annotation, read_split
from dataset.sample import Conversation, Protocol, Question, Sample, TargetSlot, Turn
from dataset.source import SESAME, Benchmark, Expected, Family, FamilyOptions, Source
from dataset.templates import evaluation
from dataset.wording import answer_present, answer_targets, ask_presence, ask_sentence, sampled
from utils.errors import DataError

OWN_FOLDER = FOLDER.with_name("fpReasonSeg")
TRUE_SHARE = 0.85
"""Chance that a training sample asks what fits its photograph, as published."""


def _images(root: Path, split: str) -> list[AnnotatedImage]:
    """Images of a split, each of whose annotations has false premises.

    Raises:
        FileNotFoundError: if there is no such folder, or it is ReasonSeg's own without false premises.
        DataError: for a malformed annotation, or one without false premises.
    """
    folder = OWN_FOLDER if (root / OWN_FOLDER).is_dir() else FOLDER
    found = read_split(root, split, folder=folder)
    for image in found:
        for annotation in image.annotations:
            if not annotation.false_premises and folder == FOLDER:
                raise FileNotFoundError(
                    f"{root / OWN_FOLDER} does not exist, and ReasonSeg's own {annotation.path} has no "
                    "false_premise_QA; put the files of the false-premise set there"
                )
            if not annotation.false_premises:
                raise DataError(
                    annotation.path, '"false_premise_QA" is missing: [[question, is_sentence, answer], ...]'
                )
    return found


class FalseReasonSegTraining:
    """The training source: one sample for each image, with queries that all fit it or all do not.

    Args:
        root: the folder that holds `reason_seg/`.
        split: of ReasonSeg.
        max_queries: most conversations of a sample.

    Raises:
        FileNotFoundError: if there is no such folder.
        DataError: for a malformed annotation.
    """

    def __init__(self, root: Path, split: str, *, max_queries: int) -> None:
        self._images, self._max_queries = _images(root, split), max_queries

    def __len__(self) -> int:
        return len(self._images)

    def training_sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Some queries about one image, drawn by `rng` alone.

        Raises:
            DataError: if image or polygons cannot be read, or no pixel belongs to a target.
        """
        record = self._images[index]
        image = read_image(record.path)
        annotation = record.annotations[rng.integers(len(record.annotations))]
        if rng.random() >= TRUE_SHARE:
            return self._untrue(annotation, image, rng)
        painted = record.painted(annotation, image.shape)
        refuse_untargeted(annotation, painted)
        texts = [annotation.texts[n] for n in sampled(len(annotation.texts), self._max_queries, rng)]
        turns = [_turn(annotation, text, rng) for text in texts]
        return Sample(
            record=annotation.path,
            image=image,
            conversations=tuple(Conversation((turn,)) for turn in turns),
            masks=(painted == TARGET)[None],
            ignore=(painted == IGNORE)[None],
            questions=(Question(texts[0]),),
        )

    def _untrue(self, annotation: Annotation, image: np.ndarray, rng: np.random.Generator) -> Sample:
        premises = annotation.false_premises
        chosen = [premises[n] for n in sampled(len(premises), self._max_queries, rng)]
        return Sample(
            record=annotation.path,
            image=image,
            conversations=tuple(
                Conversation((Turn((ask_sentence if long else ask_presence)(question, rng), (answer,)),))
                for question, long, answer in chosen
            ),
            masks=np.zeros((0, *image.shape[:2]), dtype=bool),
            questions=(Question(chosen[0][0], ()),),
        )


def _turn(annotation: Annotation, text: str, rng: np.random.Generator) -> Turn:
    if annotation.is_sentence:
        return Turn(ask_sentence(text, rng), answer_targets([TargetSlot(0)], rng))
    return Turn(ask_presence(text, rng), answer_present(text, TargetSlot(0), rng))


class FalseReasonSeg:
    """The benchmark: of each annotation its first query and its first false premise; `generate` alone.

    Args:
        root: the folder that holds `reason_seg/`.
        split: of ReasonSeg.

    Raises:
        FileNotFoundError: if there is no such folder.
        DataError: for a malformed annotation.
    """

    scoring = "see"
    protocols: tuple[Protocol, ...] = ("generate",)

    def __init__(self, root: Path, split: str) -> None:
        self._records = [(image, annotation) for image in _images(root, split) for annotation in image.annotations]

    def __len__(self) -> int:
        return len(self._records)

    def evaluation_sample(self, index: int, *, protocol: Protocol) -> Sample:
        """Both questions about one image, with the published prompts; the answers are the model's.

        Raises:
            DataError: if image or polygons cannot be read, or the benchmark has no such protocol.
        """
        record, annotation = self._records[index]
        if protocol not in self.protocols:
            raise DataError(annotation.path, f"it has no protocol {protocol}; allowed: {', '.join(self.protocols)}")
        image = read_image(record.path)
        painted = record.painted(annotation, image.shape)
        false_text, false_is_sentence, _ = annotation.false_premises[0]
        asked = ((annotation.texts[0], annotation.is_sentence), (false_text, false_is_sentence))
        templates = [evaluation.SENTENCE if is_sentence else evaluation.PHRASE for _, is_sentence in asked]
        turns = [Turn(template.format(text=text), None) for template, (text, _) in zip(templates, asked, strict=True)]
        return Sample(
            record=annotation.path,
            image=image,
            conversations=tuple(Conversation((turn,)) for turn in turns),
            masks=(painted == TARGET)[None],
            ignore=(painted == IGNORE)[None],
            questions=(Question(annotation.texts[0]), Question(false_text, ())),
        )


def _source(name: str, data: DataFolder, options: FamilyOptions) -> Source:
    return FalseReasonSegTraining(data.root, FAMILY.split(name), max_queries=options.max_questions)


def _benchmark(name: str, data: DataFolder, options: FamilyOptions) -> Benchmark:
    return FalseReasonSeg(data.root, name.partition("|")[2])


FAMILY = Family(
    name="fp_reason_seg",
    sets={"fpReasonSeg|train": Expected(("reason_seg/fpReasonSeg/train or reason_seg/ReasonSeg/train",), SESAME, 239)},
    chosen="fpReasonSeg|train",
    about="split of fp_reason_seg",
    source=_source,
    benchmarks={"fpReasonSeg": ("fpReasonSeg|val", "fpReasonSeg|test")},
    benchmark=_benchmark,
)
