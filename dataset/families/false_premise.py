"""R-RefCOCO and FP-RefCOCO: phrases that may name something which the photograph does not show.

The files are those of RefCOCO (see `dataset.readers.refer`) in folders of their own. A phrase that fits is answered
with its mask, a false premise in plain words: by a correction where the file has the phrase that would fit, else by a
denial.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from dataset.families.refer_seg import ReferBenchmark, ReferImages, ReferSet, expected
from dataset.readers.folder import DataFolder
from dataset.readers.refer import Phrase
from dataset.sample import AnswerPart, Conversation, Question, Sample, TargetSlot, Turn
from dataset.source import SESAME, Benchmark, Expected, Family, FamilyOptions, Source
from dataset.wording import answer_present, ask_presence, correct, deny, sampled
from utils.errors import DataError


def _set(split_by: str) -> ReferSet:
    return ReferSet(split_by, (f"refs({split_by}).p",), scoring="see")


SETS: Mapping[str, ReferSet] = MappingProxyType(
    {
        "R-refcoco": _set("unc_exclude_unified"),
        "R-refcoco+": _set("unc_exclude_unified"),
        "R-refcocog": _set("umd_exclude_unified"),
        "fprefcoco": _set("berkeley_exclude_unified"),
        "fprefcoco+": _set("berkeley_exclude_unified"),
        "fprefcocog": _set("berkeley_exclude_unified"),
    }
)
"""Sets by name, which is also the name of their folder below `refer_seg/`."""

PLAIN_SETS: Mapping[str, ReferSet] = MappingProxyType(
    {
        "refclef": ReferSet(
            "unc_exclude_unified", ("refs(unc_exclude_unified).p",), images=("images/saiapr_tc-12",), scoring="see"
        ),
        "refcoco": _set("unc_exclude_unified"),
        "refcoco+": _set("unc_exclude_unified"),
        "refcocog": _set("umd_exclude_unified"),
    }
)
"""RefCOCO's own sets in the files that leave out the photographs of every set's val and test, asked in the same way."""


class FalsePremise:
    """The training source: one sample for each image of a split.

    Args:
        data: the data folder.
        name: such as `R-refcoco` for its split train.
        max_questions: most phrases, and so conversations, of a sample.
        sets: that may be named.

    Raises:
        DataError: for an unknown set or split, or annotations that cannot be used.
        FileNotFoundError: for missing files.
    """

    def __init__(self, data: DataFolder, name: str, *, max_questions: int, sets: Mapping[str, ReferSet] = SETS) -> None:
        self._images = ReferImages(data, name, sets, every=False)
        self._max_questions = max_questions

    def __len__(self) -> int:
        return len(self._images)

    def training_sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Some phrases about one image, drawn by `rng` alone, in a conversation each; masks of those that fit.

        Raises:
            DataError: if image or annotations cannot be used, or no pixel belongs to an object that is there.
        """
        referred, image = self._images.read(index)
        turns: list[Turn] = []
        masks: list[np.ndarray] = []
        questions: list[Question] = []
        for number in sampled(len(referred.phrases), self._max_questions, rng):
            phrase = referred.phrases[number]
            mask = self._images.mask(phrase, referred.image)
            if mask is not None and not mask.any():
                raise DataError(phrase.record, f'no pixel belongs to "{phrase.text}", so there is nothing to learn')
            slot = None if mask is None else TargetSlot(len(masks))
            turns.append(Turn(ask_presence(phrase.text, rng), _answer(phrase, slot, rng)))
            questions.append(Question(phrase.text, () if slot is None else (slot.mask,)))
            masks += [] if mask is None else [mask]
        return Sample(
            record=referred.record,
            image=image,
            conversations=tuple(Conversation((turn,)) for turn in turns),
            masks=np.stack(masks) if masks else np.zeros((0, *image.shape[:2]), dtype=bool),
            questions=tuple(questions),
        )


def _answer(phrase: Phrase, slot: TargetSlot | None, rng: np.random.Generator) -> tuple[AnswerPart, ...]:
    if slot is not None:
        return answer_present(phrase.text, slot, rng)
    if phrase.true_text is not None:
        return correct(phrase.text, phrase.true_text, rng)
    return deny(phrase.text, rng)


class FalsePremiseBenchmark(ReferBenchmark):
    """The benchmark: whether the model sees what is there and only that, and its masks; `generate` alone.

    Args:
        data: the data folder.
        spec: `NAME|SPLIT_BY|SPLIT` or `NAME|SPLIT`, such as `fprefcoco|val`.

    Raises:
        DataError: for an unknown set or split, or a malformed record.
        FileNotFoundError: for a missing file or photograph.
    """

    def __init__(self, data: DataFolder, spec: str) -> None:
        super().__init__(data, spec, sets=SETS)


def _family(name: str, rows: dict[str, Expected], sets: Mapping[str, ReferSet], *, evaluated: bool = True) -> Family:
    """A family of sets; those that are evaluated have one split, val."""

    def source(dataset: str, data: DataFolder, options: FamilyOptions) -> Source:
        return FalsePremise(data, family.known(dataset), max_questions=options.max_questions, sets=sets)

    def benchmark(dataset: str, data: DataFolder, options: FamilyOptions) -> Benchmark:
        return FalsePremiseBenchmark(data, dataset)

    family = Family(
        name=name,
        sets=rows,
        chosen="||".join(rows),
        about=f"datasets of {name}",
        source=source,
        benchmarks={dataset: (f"{dataset}|val",) for dataset in rows} if evaluated else {},
        benchmark=benchmark if evaluated else None,
    )
    return family


def _rows(sets: Mapping[str, ReferSet], records: Mapping[str, int]) -> dict[str, Expected]:
    return {
        name: expected(name, sets[name].references[0], SESAME, count, images=f"refer_seg/{sets[name].images[0]}")
        for name, count in records.items()
    }


NEGATIVE = _family(
    "neg_refer_seg", _rows(SETS, {"R-refcoco": 15_100, "R-refcoco+": 15_100, "R-refcocog": 20_040}), SETS
)
CORRECTED = _family(
    "correct_refer_seg", _rows(SETS, {"fprefcoco": 16_990, "fprefcoco+": 16_990, "fprefcocog": 21_900}), SETS
)
PLAIN = _family(
    "fp_refer_seg",
    _rows(PLAIN_SETS, {"refclef": 17_980, "refcoco": 15_100, "refcoco+": 15_100, "refcocog": 20_040}),
    PLAIN_SETS,
    evaluated=False,
)
