"""Masks of any system put to the questions of a benchmark, each of which must have exactly one prediction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch.utils.data import DataLoader, Dataset

from anchorseg.evaluation.evaluator import Result, See, check_benchmark, predictions, result_of
from anchorseg.evaluation.given import Given, Predictions, record_key
from anchorseg.evaluation.protocols import answer_protocol
from anchorseg.evaluation.scoring import SCORINGS, QuestionResult, Reply
from dataset.sample import Protocol, Sample
from dataset.source import Benchmark
from utils.errors import DataError
from utils.progress import Bar
from utils.shown import shown

_NAMED = 5
"""Most predictions or questions that a message names."""


@dataclass(frozen=True)
class _Replied(Dataset[tuple[Sample, list[Reply], list[str | None]]]):
    """Samples of a benchmark with the replies that a file has for their questions, and where it has them."""

    source: Benchmark
    asked: Protocol
    given: Predictions
    rejects: bool
    """Whether a question may have masks and yet be rejected, as an evaluation's own files have it."""

    def __getitem__(self, index: int) -> tuple[Sample, list[Reply], list[str | None]]:
        sample = self.source.evaluation_sample(index, protocol=self.asked)
        size = (sample.image.shape[0], sample.image.shape[1])
        found = [self.given.find(index, number, sample) for number in range(len(sample.questions))]
        return (
            sample,
            [self._reply(given or Given(place="", masks=()), size) for given in found],
            [given.place if given else None for given in found],
        )

    def _reply(self, given: Given, size: tuple[int, int]) -> Reply:
        reply = given.reply(size)
        if not reply.found and reply.masks.any() and not self.rejects:
            raise DataError(
                given.place, '"found" is false, but its masks have pixels; leave "found" out, or give "masks": [] for '
                "no target"
            )  # fmt: skip
        return reply


def score_given(
    source: Benchmark,
    given: Predictions,
    *,
    name: str,
    protocol: Protocol,
    missing_is_empty: bool = False,
    workers: int = 0,
    see: Iterable[See] = (),
) -> Result:
    """Score predictions of a file by the computation that scores a model.

    Args:
        source: the benchmark.
        given: the predictions.
        name: of the benchmark.
        protocol: how the questions were asked.
        missing_is_empty: a question without a prediction counts as one that was answered without a mask.
        workers: processes that read images and masks ahead.
        see: each is called with every prediction, as in `Evaluator.evaluate`.

    Raises:
        DataError: if a question has no prediction or two, a prediction is about nothing in the benchmark or another
            one, contradicts itself, or a mask cannot be used.
    """
    check_benchmark(name, source, protocol)
    if given.benchmark not in (None, name):
        raise DataError(
            given.path, f'its "benchmark" is {shown(given.benchmark)}, but {shown(name)} is scored; score the one that '
            'the predictions are of, or leave "benchmark" out of them'
        )  # fmt: skip
    scoring = SCORINGS[source.scoring]
    rejects = scoring.rejects and protocol != "generate"
    read = DataLoader(
        _Replied(source, protocol, given, rejects),
        batch_size=None,
        sampler=range(len(source)),
        num_workers=min(workers, len(source)),
    )
    rows: list[QuestionResult] = []
    check = _Check(given, missing_is_empty)
    for index, (sample, replies, places) in enumerate(Bar(read, desc=name, total=len(source), leave=False)):
        for number, place in enumerate(places):
            check.add(f"question {number} of {record_key(sample.record)}", place)
        for prediction in predictions(scoring, index, sample, replies):
            rows.append(prediction.row)
            for look in see:
                look(prediction)
    check.finish()
    return result_of(scoring, rows, benchmark=name, protocol=protocol, leaks=answer_protocol(protocol, scoring).leaks)


class _Check:
    """Sees that every question has a prediction, and every prediction one question."""

    def __init__(self, given: Predictions, missing_is_empty: bool) -> None:
        self._given, self._missing_is_empty = given, missing_is_empty
        self._used: dict[str, str] = {}
        self._missing: list[str] = []

    def add(self, question: str, place: str | None) -> None:
        """Note where the prediction for a question is; stops at the fifth that has none."""
        if place is None:
            self._missing.append(question)
            self._refuse_missing(_NAMED)
        elif place in self._used:
            raise DataError(
                place, f"it fits two questions of the benchmark, {self._used[place]} and {question}; tell them apart "
                'by "index", the number of the sample in the benchmark (--list writes them)'
            )  # fmt: skip
        else:
            self._used[place] = question

    def finish(self) -> None:
        """Refuse what is missing, and predictions about nothing."""
        self._refuse_missing(1, so_far="")
        unknown = self._unknown()
        if unknown:
            raise DataError(
                self._given.path, f"{len(unknown)} of its predictions are about no question of the benchmark: "
                f"{'; '.join(unknown[:_NAMED])}; --list writes the questions and their names"
            )  # fmt: skip

    def _unknown(self) -> list[str]:
        """Record, question and place of each prediction that was for no question so far."""
        return [f"{each.about} ({each.place})" for each in self._given.all if each.place not in self._used]

    def _refuse_missing(self, fewest: int, so_far: str = " so far") -> None:
        if len(self._missing) >= fewest and not self._missing_is_empty:
            unknown = self._unknown()
            others = f"; predictions for no question{so_far}: {'; '.join(unknown[:_NAMED])}" if unknown else ""
            raise DataError(
                self._given.path, f"it has no prediction for {'; '.join(self._missing[:_NAMED])}{others}; add them "
                '("masks": [] for no target), or count them as empty with --missing empty; --list writes all names'
            )  # fmt: skip
