"""RefCOCO and its relatives: phrases about objects of photographs, several to an image.

`refer_seg/NAME/` holds `instances.json` and the references (see `dataset.readers.refer`); photographs are looked for
below `refer_seg/images/`. In gRefCOCO and Ref-ZOM a phrase may mean several objects, or none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from dataset.families.assembled import Target, assemble
from dataset.images import read_image
from dataset.readers.coco import CocoImage
from dataset.readers.folder import DataFolder, ImageRoots
from dataset.readers.refer import Phrase, ReferredImage, ReferSplit
from dataset.sample import AnswerPart, Conversation, Protocol, Question, RejectSlot, Sample, TargetSlot, Turn
from dataset.source import COCO_IMAGES, LISA, TRAIN2014, Benchmark, Expected, Family, FamilyOptions, Source
from dataset.templates import evaluation
from dataset.wording import sampled
from utils.errors import DataError

_TRAIN2014, _VAL2014 = "images/mscoco/images/train2014", "images/mscoco/images/val2014"

_PROTOCOLS: Mapping[str, tuple[Protocol, ...]] = {
    "refer": ("forced", "generate"),
    "gres": ("forced", "symmetric", "generate"),
    "zom": ("forced", "symmetric", "generate"),
    "see": ("generate",),
}


@dataclass(frozen=True)
class ReferSet:
    """What is known of a set.

    Attributes:
        split_by: who divided it into splits, as the middle field of a benchmark's name says.
        references: names that its file of references may have; the first that exists is read.
        images: folders of its photographs below `refer_seg/`, searched in order.
        exact: split names match exactly, see `ReferSplit`.
        scoring: how answers are scored; with any but `refer` there are phrases without an object.
    """

    split_by: str
    references: tuple[str, ...]
    images: tuple[str, ...] = (_TRAIN2014,)
    exact: bool = False
    scoring: str = "refer"


SETS: Mapping[str, ReferSet] = MappingProxyType(
    {
        "refclef": ReferSet("unc", ("refs(unc).p",), images=("images/saiapr_tc-12",)),
        "refcoco": ReferSet("unc", ("refs(unc).p",)),
        "refcoco+": ReferSet("unc", ("refs(unc).p",)),
        "refcocog": ReferSet("umd", ("refs(umd).p",)),
        "grefcoco": ReferSet("unc", ("grefs(unc).p", "grefs(unc).json"), exact=True, scoring="gres"),
        "refzom": ReferSet(
            "final",
            ("Ref_ZOM.p",),
            images=("refzom/trainval2014", "refzom/train2014", "refzom/val2014", _TRAIN2014, _VAL2014),
            scoring="zom",
        ),
    }
)
"""Sets by name, which is also the name of their folder below `refer_seg/`."""


class ReferImages:
    """One split of a set: its photographs with their phrases, and what these mean.

    Args:
        data: the data folder.
        spec: `NAME`, `NAME|SPLIT` or `NAME|SPLIT_BY|SPLIT`.
        sets: that may be named.
        every: refuse malformed records and look for every photograph. Otherwise look for some, and the split may be
            left out, which then is `train`.

    Raises:
        DataError: for an unknown set or split, or annotations that cannot be used.
        FileNotFoundError: for missing files.
    """

    def __init__(self, data: DataFolder, spec: str, sets: Mapping[str, ReferSet], *, every: bool) -> None:
        name, split = _parse(spec, sets, None if every else "train")
        self.set = sets[name]
        folder = f"refer_seg/{name}"
        paths = data.find(*(f"{folder}/{file}" for file in self.set.references)), data.find(f"{folder}/instances.json")
        self._split = ReferSplit(*paths, data.index, split, exact=self.set.exact)
        self._roots = ImageRoots(data, *(f"refer_seg/{images}" for images in self.set.images))
        if every:
            self._split.refuse_problems()
        self._roots.check(len(self._split), self._split.file_name, str(paths[0]), every=every)

    def __len__(self) -> int:
        """Photographs with a phrase of the split."""
        return len(self._split)

    def read(self, number: int) -> tuple[ReferredImage, np.ndarray]:
        """Photograph `number` with its phrases, and its (H, W, 3) uint8 RGB pixels.

        Raises:
            DataError: if a record is malformed, or the file cannot be read or has another size than its record.
        """
        referred = self._split[number]
        path = self._roots.find(referred.image.file_name, referred.record)
        image = read_image(path)
        (height, width), wanted = image.shape[:2], referred.image
        if (height, width) != (wanted.height, wanted.width):
            raise DataError(
                path,
                f"it has {height} x {width} pixels (EXIF rotation applied), but its record says "
                f"{wanted.height} x {wanted.width}; annotations and photographs must be of one set",
            )
        return referred, image

    def mask(self, phrase: Phrase, image: CocoImage) -> np.ndarray | None:
        """(H, W) boolean of what a phrase means, or None if there is no such object; raises as `objects`."""
        found = self.objects(phrase, image)
        return None if found is None else np.asarray(found.any(axis=0))

    def objects(self, phrase: Phrase, image: CocoImage) -> np.ndarray | None:
        """(m, H, W) boolean of the objects that a phrase means, or None if there is no such object.

        Raises:
            DataError: if its annotations cannot be used, or it has none in a set where every phrase has an object.
        """
        if phrase.annotations:
            return self._split.objects(phrase, image)
        if self.set.scoring == "refer":
            raise DataError(
                phrase.record, f'"{phrase.text}" has no annotation, but in this set every phrase needs one; name it'
            )
        return None


def _parse(spec: str, sets: Mapping[str, ReferSet], default: str | None) -> tuple[str, str]:
    """Name and split of `NAME`, `NAME|SPLIT` or `NAME|SPLIT_BY|SPLIT`."""
    name, *rest = spec.split("|")
    if name not in sets:
        raise DataError(spec, f"there is no set {name}; allowed: {', '.join(sets)}")
    if not rest and default is not None:
        return name, default
    known = sets[name].split_by
    if len(rest) not in (1, 2) or not rest[-1]:
        raise DataError(spec, f"it names no split; write {name}|{known}|SPLIT")
    if len(rest) == 2 and rest[0] != known:
        raise DataError(spec, f"{name} is split by {known}, not {rest[0]}; write {name}|{known}|{rest[1]}")
    return name, rest[-1]


class ReferSeg:
    """The training source: one sample for each image of a split.

    Args:
        data: the data folder.
        spec: `refcoco` for its split train, or with a split, such as `refcoco|val`.
        max_questions: most conversations of a sample.
        max_per_question: most phrases of a conversation.
        instances: tell the objects of a phrase apart.

    Raises:
        DataError: for an unknown set or split, or annotations that cannot be used.
        FileNotFoundError: for missing files.
    """

    def __init__(
        self, data: DataFolder, spec: str, *, max_questions: int, max_per_question: int, instances: bool = False
    ) -> None:
        self._images = ReferImages(data, spec, SETS, every=False)
        self._max_questions, self._max_per_question = max_questions, max_per_question
        self._instances = instances

    def __len__(self) -> int:
        return len(self._images)

    def training_sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Some of all phrases about one image, drawn by `rng` alone; one without an object is answered by `<REJ>`.

        Raises:
            DataError: if image or annotations cannot be used, or no pixel belongs to an object that is there.
        """
        referred, image = self._images.read(index)
        numbers = sampled(len(referred.phrases), self._max_questions * self._max_per_question, rng)
        phrases = [referred.phrases[number] for number in numbers]
        return assemble(
            referred.record,
            image,
            [self._target(phrase, referred.image) for phrase in phrases],
            max_questions=self._max_questions,
            max_per_question=self._max_per_question,
            rng=rng,
        )

    def _target(self, phrase: Phrase, image: CocoImage) -> Target:
        objects = self._images.objects(phrase, image)
        if objects is None:
            return Target(phrase.text, None)
        return Target(phrase.text, np.asarray(objects.any(axis=0)), objects if self._instances else None)


class ReferBenchmark:
    """The benchmark: one sample for each image of a split, with every phrase about it, in lower case.

    Args:
        data: the data folder.
        spec: `NAME|SPLIT_BY|SPLIT`, such as `refcoco|unc|testA`; the middle field may be left out.
        sets: that may be named.

    Attributes:
        scoring: how answers are scored.
        protocols: how the benchmark may be asked.

    Raises:
        DataError: for an unknown set or split, or a malformed record.
        FileNotFoundError: for a missing file or photograph.
    """

    def __init__(self, data: DataFolder, spec: str, *, sets: Mapping[str, ReferSet] = SETS) -> None:
        self._spec = spec
        self._images = ReferImages(data, spec, sets, every=True)
        self.scoring = self._images.set.scoring
        self.protocols = _PROTOCOLS[self.scoring]

    def __len__(self) -> int:
        return len(self._images)

    def evaluation_sample(self, index: int, *, protocol: Protocol) -> Sample:
        """Every phrase about one image, a mask for each, which is empty where there is no object.

        `generate` asks each phrase by itself; `forced` and `symmetric` ask all in one question with its answer. Where a
        set has phrases without an object, `forced` has `<REJ>` for them, and thereby tells the model the truth.

        Raises:
            DataError: if image or annotations cannot be used, or the benchmark has no such protocol.
        """
        if protocol not in self.protocols:
            raise DataError(self._spec, f"it has no protocol {protocol}; allowed: {', '.join(self.protocols)}")
        referred, image = self._images.read(index)
        found = [self._images.mask(phrase, referred.image) for phrase in referred.phrases]
        empty = np.zeros(image.shape[:2], dtype=bool)
        masks = np.stack([empty if mask is None else mask for mask in found])
        texts = [phrase.text for phrase in referred.phrases]
        rejects = self.scoring != "refer"
        return asked_together(referred.record, image, texts, masks, protocol=protocol, rejects=rejects)


def asked_together(
    record: str,
    image: np.ndarray,
    texts: Sequence[str],
    masks: np.ndarray,
    *,
    protocol: Protocol,
    rejects: bool,
    ignore: np.ndarray | None = None,
) -> Sample:
    """All phrases about an image as a benchmark asks them.

    Args:
        record: where they come from.
        image: (H, W, 3) uint8 RGB.
        texts: n phrases, which are asked in lower case.
        masks: (n, H, W) boolean, empty where there is no object.
        protocol: `generate` asks each phrase by itself, the others all in one question with its answer.
        rejects: in `forced`, put `<REJ>` into the slot of a phrase without an object.
        ignore: (n, H, W) boolean, pixels to be left out, or None.
    """
    texts = [text.lower() for text in texts]
    there = [bool(mask.any()) for mask in masks]
    rejected = [rejects and protocol == "forced" and not found for found in there]
    return Sample(
        record=record,
        image=image,
        conversations=_conversations(texts, rejected, protocol),
        masks=masks,
        ignore=ignore,
        questions=tuple(Question(text, (k,) if there[k] else ()) for k, text in enumerate(texts)),
    )


def _conversations(texts: Sequence[str], rejected: Sequence[bool], protocol: Protocol) -> tuple[Conversation, ...]:
    if protocol == "generate":
        return tuple(Conversation((Turn(evaluation.PHRASE.format(text=text), None),)) for text in texts)
    names = [text.strip(".") for text in texts]
    opening, before, end = evaluation.PHRASES_ANSWER
    parts: list[AnswerPart] = []
    for number, name in enumerate(names):
        slot = RejectSlot() if rejected[number] else TargetSlot(number)
        parts += [f"{', ' if number else opening}{before.format(text=name)}", slot]
    return (Conversation((Turn(evaluation.PHRASES.format(texts=", ".join(names)), (*parts, end)),)),)


def expected(
    name: str, references: str, source: str, records: int, rounding: int = 5, images: str = TRAIN2014
) -> Expected:
    """What a set below `refer_seg/` needs; `references` joins names of its file by " or "."""
    folder = f"refer_seg/{name}"
    references = " or ".join(f"{folder}/{file}" for file in references.split(" or "))
    return Expected((f"{folder}/instances.json", references, images), source, records, rounding)


def _source(name: str, data: DataFolder, options: FamilyOptions) -> Source:
    FAMILY.known(name.partition("|")[0])
    return ReferSeg(
        data,
        name,
        max_questions=options.max_questions,
        max_per_question=options.max_per_question,
        instances=options.instances,
    )


def _benchmark(name: str, data: DataFolder, options: FamilyOptions) -> Benchmark:
    return ReferBenchmark(data, name)


_UNC = ("val", "testA", "testB")
FAMILY = Family(
    name="refer_seg",
    sets={
        "refclef": expected("refclef", "refs(unc).p", LISA, 17_980, images="refer_seg/images/saiapr_tc-12"),
        "refcoco": expected("refcoco", "refs(unc).p", f"{LISA}; {COCO_IMAGES}", 16_994, 0),
        "refcoco+": expected("refcoco+", "refs(unc).p", f"{LISA}; {COCO_IMAGES}", 16_990),
        "refcocog": expected("refcocog", "refs(umd).p", f"{LISA}; {COCO_IMAGES}", 21_900),
        "refzom": expected(
            "refzom",
            "Ref_ZOM.p",
            f"https://github.com/toggle1995/RIS-DMMI; {COCO_IMAGES}",
            43_749,
            0,
            f"refer_seg/refzom/trainval2014 or refer_seg/refzom/train2014 or {TRAIN2014}",
        ),
        "grefcoco": expected(
            "grefcoco",
            "grefs(unc).p or grefs(unc).json",
            f"https://github.com/henghuiding/gRefCOCO; {COCO_IMAGES}",
            16_990,
        ),
    },
    chosen="refclef||refcoco||refcoco+||refcocog||refzom||grefcoco",
    about="datasets of refer_seg, each with |SPLIT or train",
    source=_source,
    benchmarks={
        **{
            name: tuple(f"{name}|unc|{split}" for split in _UNC)
            for name in ("refclef", "refcoco", "refcoco+", "grefcoco")
        },
        "refcocog": ("refcocog|umd|val", "refcocog|umd|test"),
        "refzom": ("refzom|final|test",),
    },
    benchmark=_benchmark,
)
