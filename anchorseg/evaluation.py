"""Evaluation: the one function behind validation in training and behind the evaluation script.

Two protocols, never mixed. `forced`: the answer with the query bank is in the prompt, and one forward pass gives the
mask (published numbers). `generate`: the model writes its answer; without `<SEG>` there is no mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from anchorseg.data import EvaluationSource
from anchorseg.generation import generate
from anchorseg.modeling import AnchorSegModel
from anchorseg.tokens import TokenRegistry
from dataset.batch import Batch, Collator
from dataset.sample import Sample
from utils import metrics
from utils.distributed import all_gather_objects, is_main, rank, world_size

Protocol = Literal["forced", "generate"]
PROTOCOLS: tuple[Protocol, ...] = ("forced", "generate")


@dataclass(frozen=True, kw_only=True)
class Row:
    """Result of one sample: pixel counts, and what the model wrote (generate) or None (forced)."""

    index: int
    record: str
    query: str
    intersection: int
    union: int
    iou: float
    answer: str | None
    num_targets: int


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a sample's mask looks like: the sample, its mask (H, W) or None, and the prior map (H, W) or None."""

    row: Row
    sample: Sample
    mask: np.ndarray | None
    prior: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """Scores of one benchmark under one protocol."""

    benchmark: str
    protocol: Protocol
    giou: float
    ciou: float
    rows: tuple[Row, ...]

    def summary(self) -> dict[str, object]:
        """Scores without rows."""
        return {"giou": self.giou, "ciou": self.ciou, "num_samples": len(self.rows)}

    def to_dict(self) -> dict[str, object]:
        """Scores and per-sample rows, as results.json holds them."""
        return {**self.summary(), "rows": [asdict(row) for row in self.rows]}


class Evaluator:
    """Evaluates a model on benchmarks, alone or on several ranks.

    Batches are formed by sample index before they are dealt to ranks, so that every number is the same for any
    number of ranks, and no sample is seen twice.

    Args:
        model: in evaluation mode.
        registry: its tokenizer.
        collator: for its views and prompts.
        batch_size: samples of one forward pass.
        max_new_tokens: longest answer in `generate`.
    """

    def __init__(
        self,
        model: AnchorSegModel,
        registry: TokenRegistry,
        collator: Collator,
        *,
        batch_size: int = 1,
        max_new_tokens: int = 128,
    ) -> None:
        self.model = model
        self.registry = registry
        self.collator = collator
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens

    def evaluate(
        self,
        source: EvaluationSource,
        *,
        name: str,
        protocol: Protocol,
        show: Callable[[Prediction], None] | None = None,
    ) -> Result:
        """Score every sample of a benchmark; a sample that cannot be read is fatal.

        Args:
            source: the benchmark.
            name: its name, for the result.
            protocol: forced or generate.
            show: called with every prediction of this rank, for pictures.
        """
        starts = range(0, len(source), self.batch_size)
        mine = list(starts)[rank() :: world_size()]
        rows: list[Row] = []
        for start in tqdm(mine, desc=f"{name} {protocol}", disable=not is_main(), leave=False):
            indices = range(start, min(start + self.batch_size, len(source)))
            samples = [source.evaluation_sample(index, forced=protocol == "forced") for index in indices]
            for prediction in self._predict(list(indices), samples, protocol):
                rows.append(prediction.row)
                if show is not None:
                    show(prediction)
        gathered = sorted((row for part in all_gather_objects(rows) for row in part), key=lambda row: row.index)
        assert [row.index for row in gathered] == list(range(len(source))), "every sample exactly once"
        scores = [metrics.TargetScore(intersection=row.intersection, union=row.union) for row in gathered]
        return Result(
            benchmark=name,
            protocol=protocol,
            giou=metrics.giou(scores),
            ciou=metrics.ciou(scores),
            rows=tuple(gathered),
        )

    @torch.inference_mode()
    def _predict(self, indices: list[int], samples: list[Sample], protocol: Protocol) -> list[Prediction]:
        parameter = next(self.model.parameters())
        batch: Batch = self.collator(samples).to(parameter.device, parameter.dtype)
        answers: list[str | None] = [None] * len(samples)
        if protocol == "forced":
            segmentation = self.model(batch).segmentation
        else:
            generated = generate(self.model, batch, max_new_tokens=self.max_new_tokens)
            segmentation = generated.segmentation
            answers = [self.registry.decode(ids) for ids in generated.ids]
        predictions = []
        for place, (index, sample) in enumerate(zip(indices, samples, strict=True)):
            logits = segmentation.masks[place]
            mask = (logits > 0).any(dim=0).cpu().numpy() if len(logits) else None
            prior = segmentation.prior
            heat = prior.maps[place].amax(dim=0).cpu().numpy() if prior is not None and len(logits) else None
            row = _score(index, sample, mask, answers[place], len(logits))
            predictions.append(Prediction(row=row, sample=sample, mask=mask, prior=heat))
        return predictions


def _score(index: int, sample: Sample, mask: np.ndarray | None, answer: str | None, num_targets: int) -> Row:
    truth = sample.truth
    predicted = np.zeros_like(truth) if mask is None else mask
    intersection, union = metrics.intersection_and_union(predicted, truth, sample.void)
    return Row(
        index=index,
        record=sample.record,
        query=sample.query,
        intersection=intersection,
        union=union,
        iou=metrics.iou(intersection, union),
        answer=answer,
        num_targets=num_targets,
    )
