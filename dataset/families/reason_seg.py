"""ReasonSeg: one photograph, its reasoning queries and the polygons of what they mean.

`ROOT/reason_seg/ReasonSeg/{train,val,test}/NAME.jpg` with `NAME.json`, and `explanatory/train.json`. An annotation
holds `text` (1 to 5 wordings of one query), `is_sentence`, and `shapes` (label and polygon points; "flag" shapes are
dropped and "ignore" shapes are left out of evaluation). An image may have further queries in `NAME.2.json`,
`NAME.3.json`, ..., which the published sets do not use.
"""

from __future__ import annotations

import copy
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from dataset.images import image_size, read_image
from dataset.masks import IGNORE
from dataset.readers.folder import DataFolder
from dataset.readers.labelme import LabelMeFile, parse_labelme
from dataset.readers.western import decode_western
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
from utils.files import read_json
from utils.shown import shown

FOLDER = Path("reason_seg") / "ReasonSeg"
SPLITS = ("train", "val", "test", "test_overall", "test_shortquery", "test_longquery")
TARGET = 1


@dataclass(frozen=True, eq=False)
class Annotation:
    """What one annotation file says."""

    path: str
    texts: tuple[str, ...]
    is_sentence: bool
    shapes: LabelMeFile
    false_premises: tuple[tuple[str, bool, str], ...] = ()
    """Question, whether it is a sentence, and answer; see `dataset.families.false_reason_seg`."""


def read_annotation(path: Path) -> Annotation:
    """Read and check one annotation file, all but the pixels of masks.

    Raises:
        DataError: naming the file and what is wrong with it.
    """
    try:
        content = read_json(path, kind=dict, decode=decode_western)
    except FileNotFoundError:
        raise DataError(path, "the annotation file does not exist; every .jpg needs a .json of the same name") from None
    texts = content.get("text")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise DataError(path, '"text" must be a list of at least one string')
    if not all(text.strip() for text in texts):
        raise DataError(path, '"text" holds an empty query; give every query some words')
    if not isinstance(content.get("shapes"), list):
        raise DataError(path, '"shapes" is missing; give a list of labelled polygons')
    is_sentence = content.get("is_sentence", False)
    if is_sentence not in (True, False):  # 1 and 0 as well
        raise DataError(path, f'"is_sentence" is {shown(is_sentence)}; it must be true or false, without quotes')
    return Annotation(
        path=str(path),
        texts=tuple(text.strip() for text in texts),
        is_sentence=bool(is_sentence),
        shapes=parse_labelme(content, path, fewest_corners=1),
        false_premises=_false_premises(content.get("false_premise_QA", []), path),
    )


def _false_premises(found: object, path: Path) -> tuple[tuple[str, bool, str], ...]:
    if not isinstance(found, list):
        raise DataError(
            path, f'"false_premise_QA" is {shown(found)}; it must be a list of [question, is_sentence, answer]'
        )
    for entry in found:
        kinds = isinstance(entry, list) and [type(value) for value in entry] == [str, bool, str]
        if not kinds or not entry[0].strip() or not entry[2].strip():
            raise DataError(
                path, f'"false_premise_QA" holds {shown(entry)}; every entry must be [question, true or false, answer]'
            )
    return tuple((question.strip(), is_sentence, answer.strip()) for question, is_sentence, answer in found)


def _explanations(root: Path) -> dict[str, str]:
    """Explanation by the name of its annotation file."""
    path = root / FOLDER / "explanatory" / "train.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist, but --explanatory is on; put it there, or switch it off with --explanatory -1"
        )
    found: dict[str, str] = {}
    for entry in read_json(path, kind=list, decode=decode_western):
        texts = [entry.get(key) for key in ("image", "outputs")] if isinstance(entry, dict) else [None]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise DataError(path, f'entry {shown(entry, 80)} needs "image" and a non-empty "outputs"')
        name = entry.get("json") or f"{PurePosixPath(entry['image']).stem}.json"
        if not isinstance(name, str):
            raise DataError(path, f'"json" is {shown(name)}; it must be the name of an annotation file')
        found[PurePosixPath(name).name] = entry["outputs"].strip()
    return found


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and the annotation of each query about it."""

    path: Path
    annotations: tuple[Annotation, ...]

    def painted(self, annotation: Annotation, size: tuple[int, ...]) -> np.ndarray:
        """(H, W) uint8 of an annotation of the image of (height, width): 1 target, 255 ignore."""
        return annotation.shapes.painted(*size[:2])

    def files(self) -> tuple[Path, ...]:
        """Image and annotations."""
        return self.path, *(Path(annotation.path) for annotation in self.annotations)


def _by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Files by their name without suffix; a name may be decomposed Unicode on disk.

    Raises:
        DataError: if two files have the same.
    """
    found: dict[str, Path] = {}
    for path in files:
        stem = unicodedata.normalize("NFC", path.stem)
        if found.setdefault(stem, path) != path:
            raise DataError(
                path, f"it differs from {found[stem].name} in the suffix alone, but annotations are found by the name"
            )
    return found


def _owners(images: dict[str, Path], texts: dict[str, Path]) -> dict[str, list[Path]]:
    """Annotation files of each image by its stem: NAME.json, then NAME.2.json, NAME.3.json, ..., in sorted order.

    Raises:
        DataError: if an image has no NAME.json, or a file belongs to no image.
    """
    owned: dict[str, list[Path]] = {stem: [] for stem in images}
    for stem, path in texts.items():
        name, _, number = stem.rpartition(".")
        # A file whose own image is there is that image's alone, whatever its name.
        owner = stem if stem in images else name if number.isdecimal() else stem
        if owner not in images:
            raise DataError(path, f"there is no image {stem}.jpg; add it, or remove the file")
        owned[owner].append(path)
    for stem, image in images.items():
        if stem not in texts:
            missing = image.with_suffix(".json")
            raise DataError(missing, "the annotation file does not exist; every .jpg needs a .json of the same name")
    return {stem: [texts[stem], *(path for path in paths if path != texts[stem])] for stem, paths in owned.items()}


def read_split(root: str | Path, split: str, *, folder: Path = FOLDER) -> list[AnnotatedImage]:
    """Images of a split in sorted order, with their annotations.

    Args:
        root: the folder that holds `reason_seg/`.
        split: `train`, `val`, `test`, `test_overall` (all of test), `test_shortquery`, `test_longquery` (phrases or
            sentences of test).
        folder: of the set below `root`.

    Raises:
        FileNotFoundError: if the folder is missing or empty.
        DataError: for an unknown split or a malformed annotation.
    """
    if split not in SPLITS:
        raise DataError(f"ReasonSeg|{split}", f"no such split; allowed: {', '.join(SPLITS)}")
    place = folder / split.split("_")[0]
    folder = Path(root) / place
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist; --dataset_dir must hold {place} with .jpg and .json")
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    images = _by_stem(path for path in files if path.suffix.lower() in (".jpg", ".jpeg"))
    if not images:
        raise FileNotFoundError(f"{folder} holds no .jpg image; fetch ReasonSeg again or run scripts.make_scenes")
    owned = _owners(images, _by_stem(path for path in files if path.suffix.lower() == ".json"))
    found = [AnnotatedImage(image, tuple(map(read_annotation, owned[stem]))) for stem, image in images.items()]
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
    return ReasonSegTraining(data.root, splits, explanatory=options.explanatory, max_queries=options.max_questions)


def _benchmark(name: str, data: DataFolder, options: FamilyOptions) -> Benchmark:
    return ReasonSeg(data.root, name.partition("|")[2])


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
    benchmarks={"ReasonSeg": ("ReasonSeg|val", "ReasonSeg|test")},
    benchmark=_benchmark,
)
