"""Evaluation: the one function behind validation in training and behind the evaluation script.

How a sample is asked is in `protocols`, how an answer counts in `scoring`. A result is of one protocol; they are never
mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from anchorseg.evaluation.protocols import AnswerProtocol, Responder, answer_protocol
from anchorseg.evaluation.scoring import (
    MUSE_BY_POINTS,
    SCORINGS,
    Intervals,
    QuestionResult,
    Reply,
    Scores,
    Scoring,
    ignored,
    truths,
)
from anchorseg.inference.feature_cache import FeatureCache
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.tokens import TokenRegistry
from dataset.batch import Batch, Images
from dataset.collator import Collator
from dataset.sample import Protocol, Sample
from dataset.source import Benchmark
from utils.distributed import all_gather_objects, is_main, rank, world_size
from utils.errors import DataError
from utils.progress import Bar


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One question, the model's reply and its score, and what a picture shows of them: truth (H, W), mask (H, W) or
    None where the model finds no target, and pixels (H, W) that are not scored or None."""

    row: QuestionResult
    sample: Sample
    reply: Reply
    truth: np.ndarray
    mask: np.ndarray | None
    ignore: np.ndarray | None


See = Callable[[Prediction], None]
"""What is done with every prediction of a rank besides scoring it."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Scores of one benchmark under one protocol.

    Attributes:
        benchmark: its name.
        protocol: how it was asked.
        leaks: whether the prompt gave the answers away: the published protocol of benchmarks with rejections.
        scores: by name; `giou` and `ciou` are always there. None where there is nothing to average.
        intervals: 95 % bootstrap interval of each score, over images.
        rows: one for each question, in order.
    """

    benchmark: str
    protocol: Protocol
    leaks: bool
    scores: Scores
    intervals: Intervals
    rows: tuple[QuestionResult, ...]

    @property
    def giou(self) -> float:
        """gIoU, by the published rule where there are several."""
        return self._always("giou")

    @property
    def ciou(self) -> float:
        """cIoU, by the published rule where there are several."""
        return self._always("ciou")

    @property
    def num_samples(self) -> int:
        """Images, or records of images, that were asked about."""
        return len({row.index for row in self.rows})

    def _always(self, name: str) -> float:
        value = self.scores[name]
        assert value is not None, name
        return value

    def to_dict(self) -> dict[str, object]:
        """Scores and rows, as results.json holds them."""
        return {
            **self.scores,
            "num_samples": self.num_samples,
            "num_questions": len(self.rows),
            "leaks": self.leaks,
            "intervals": self.intervals,
            "rows": [row.to_dict() for row in self.rows],
        }


def choose_protocols(name: str, source: Benchmark, choice: str) -> tuple[Protocol, ...]:
    """The protocols that `--protocol` means for a benchmark: both of LISA's, all that it has, or the one named.

    Raises:
        DataError: see `check_benchmark`.
    """
    groups: dict[str, tuple[Protocol, ...]] = {"both": ("forced", "generate"), "all": get_args(Protocol)}
    if choice in groups:
        chosen = tuple(protocol for protocol in groups[choice] if protocol in source.protocols)
    else:
        chosen = (cast(Protocol, choice),)
    for protocol in chosen:
        check_benchmark(name, source, protocol)
    return chosen


def check_benchmark(name: str, source: Benchmark, protocol: Protocol) -> None:
    """Refuse to evaluate nothing, or by a protocol that a benchmark does not have.

    Raises:
        DataError: naming the benchmark.
    """
    if not len(source):
        raise DataError(name, "it holds no sample, so there is nothing to score; choose another split")
    if protocol not in source.protocols:
        raise DataError(name, f"it has no protocol {protocol}; allowed: {', '.join(source.protocols)}")


@dataclass(frozen=True)
class _Prepared(Dataset[tuple[Sample, Batch | Images]]):
    """Samples of a benchmark with what the model reads of them, made in any process."""

    source: Benchmark
    protocol: Protocol
    way: AnswerProtocol
    collator: Collator

    def __getitem__(self, index: int) -> tuple[Sample, Batch | Images]:
        sample = self.source.evaluation_sample(index, protocol=self.protocol)
        return sample, self.way.prepare(self.collator, sample)


class Evaluator:
    """Evaluates a model on benchmarks, alone or on several ranks.

    Every sample is put to the model by itself, by exactly one rank, so that all numbers are the same for any number of
    ranks.

    Args:
        model: in evaluation mode.
        registry: its tokenizer.
        collator: for its views and prompts.
        max_rows: most questions that are answered at once in `generate`.
        max_new_tokens: longest answer in `generate`.
        cache: of SAM's features, whose store the collator has.
        workers: processes that read images ahead; 0 reads them in this one.
        muse_matching: masks and targets of MUSE are paired by their IoU, or as published by cost at drawn points.
    """

    def __init__(
        self,
        model: AnchorSegModel,
        registry: TokenRegistry,
        collator: Collator,
        *,
        max_rows: int = 8,
        max_new_tokens: int = 128,
        cache: FeatureCache | None = None,
        workers: int = 0,
        muse_matching: Literal["iou", "points"] = "iou",
    ) -> None:
        self.workers = workers
        self.muse_matching = muse_matching
        self.responder = Responder(
            model, registry, collator, max_rows=max_rows, max_new_tokens=max_new_tokens, cache=cache
        )

    def evaluate(
        self,
        source: Benchmark,
        *,
        name: str,
        protocol: Protocol,
        see: Sequence[See] = (),
    ) -> Result:
        """Score every question of a benchmark; a sample that cannot be read is fatal.

        Args:
            source: the benchmark.
            name: its name, for the result.
            protocol: one of those that the benchmark has.
            see: each is called with every prediction of this rank, such as to draw it.

        Raises:
            DataError: see `check_benchmark`; also for a sample that cannot be read, or whose slots do not fit its
                questions.
        """
        check_benchmark(name, source, protocol)
        by_points = source.scoring == "muse" and self.muse_matching == "points"
        scoring = SCORINGS[MUSE_BY_POINTS if by_points else source.scoring]
        way = answer_protocol(protocol, scoring)
        rows: list[QuestionResult] = []
        mine = range(rank(), len(source), world_size())
        read = DataLoader(
            _Prepared(source, protocol, way, self.responder.collator),
            batch_size=None,
            sampler=mine,
            num_workers=min(self.workers, len(mine)),
            pin_memory=torch.cuda.is_available(),
        )
        bar = Bar(read, desc=f"{name} {protocol}", total=len(mine), disable=not is_main(), leave=False)
        for index, (sample, prepared) in zip(mine, bar, strict=True):
            with torch.inference_mode():
                replies = way.replies(self.responder, sample, prepared)
            for prediction in predictions(scoring, index, sample, replies):
                rows.append(prediction.row)
                for look in see:
                    look(prediction)
        parts = all_gather_objects(rows)
        gathered = sorted((row for part in parts for row in part), key=lambda row: (row.index, row.question))
        starts = [row.index for row in gathered if row.question == 0]
        assert starts == list(range(len(source))), "every sample exactly once"
        return result_of(scoring, gathered, benchmark=name, protocol=protocol, leaks=way.leaks)

    def finish(self) -> None:
        """Say what the cache of features gave, if there is one."""
        if self.responder.cache is not None:
            self.responder.cache.finish()


def result_of(
    scoring: Scoring, rows: Sequence[QuestionResult], *, benchmark: str, protocol: Protocol, leaks: bool
) -> Result:
    """The scores of all rows of a benchmark, in order."""
    return Result(
        benchmark=benchmark,
        protocol=protocol,
        leaks=leaks,
        scores=scoring.scores(rows),
        intervals=scoring.intervals(rows),
        rows=tuple(rows),
    )


def predictions(scoring: Scoring, index: int, sample: Sample, replies: Sequence[Reply]) -> Iterator[Prediction]:
    """Each question of sample `index` with its reply, scored."""
    for number, (question, reply) in enumerate(zip(sample.questions, replies, strict=True)):
        row = scoring.row(sample, index, number, reply)
        yield Prediction(
            row=row,
            sample=sample,
            reply=reply,
            truth=np.asarray(truths(sample, question).any(axis=0)),
            mask=scoring.united(reply) if row.found else None,
            ignore=ignored(sample, question),
        )
