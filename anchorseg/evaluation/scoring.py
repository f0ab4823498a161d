"""Scoring: from the masks that answer a question to a row, and from the rows of a benchmark to its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from anchorseg.evaluation.intervals import ratio_intervals
from dataset.sample import Question, Sample
from utils import metrics
from utils.matching import drawn_points, match_by_costs, match_masks, point_costs

PRECISION_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)

Scores = dict[str, float | None]
Terms = dict[str, tuple[float, float]]
"""What a row adds to numerator and denominator of each score."""
Intervals = dict[str, tuple[float, float] | None]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the model gives for one question.

    Attributes:
        masks: (n, H, W) boolean, in the order of the targets written or of the slots given.
        found: false if it says that there is no such object.
        answer: what it wrote, or None where the answer was given.
        prior: (H, W) strongest spatial prior of its masks in [0, 1], or None.
        logits: (n, H, W) of the masks where the model is; None for masks that were read from a file.
        cut: whether the answer reached the most tokens that it may have.
    """

    masks: np.ndarray
    found: bool
    answer: str | None = None
    prior: np.ndarray | None = None
    logits: Tensor | None = None
    cut: bool = False


@dataclass(frozen=True, kw_only=True)
class QuestionResult:
    """Result of one question.

    Attributes:
        index: of the sample in its benchmark; question: number within the sample.
        record: where the sample comes from.
        query: the question's own words.
        answer: what the model wrote, or None where the answer was given.
        has_target: whether there is such an object.
        found: whether the model says so; true where it is not asked.
        num_masks: masks that the model drew.
        truth_pixels: pixels of the truth.
        pairs: intersection and union in pixels: one, or in MUSE one for each target or prediction, whichever are more.
        box_iou: IoU of the boxes around mask and truth; None in MUSE.
        image_pixels: pixels of the image.
        cut: whether the answer reached the most tokens that it may have.
    """

    index: int
    question: int
    record: str
    query: str
    answer: str | None
    has_target: bool
    found: bool
    num_masks: int
    truth_pixels: int
    pairs: tuple[tuple[int, int], ...]
    box_iou: float | None
    image_pixels: int
    cut: bool

    @property
    def overlaps(self) -> list[metrics.TargetScore]:
        """`pairs` as scores."""
        return [metrics.TargetScore(intersection=both, union=either) for both, either in self.pairs]

    @property
    def drawn_pixels(self) -> int:
        """Pixels of the one mask that answers the question, ignored ones left out."""
        return sum(both + either for both, either in self.pairs) - self.truth_pixels

    @property
    def iou(self) -> float | None:
        """Mean IoU of the pairs; None if nothing was wanted and nothing drawn in MUSE."""
        return metrics.giou(self.overlaps) if self.pairs else None

    def to_dict(self) -> dict[str, object]:
        """As results.json holds it."""
        return {**asdict(self), "iou": self.iou}


def truths(sample: Sample, question: Question) -> np.ndarray:
    """(m, H, W) boolean masks of a question's targets."""
    return sample.masks[np.array(question.targets, dtype=int)]


def ignored(sample: Sample, question: Question) -> np.ndarray | None:
    """(H, W) boolean pixels that a question's scores leave out, never pixels of its own truth, or None."""
    if sample.ignore is None:
        return None
    indices = np.array(question.targets, dtype=int)
    return np.asarray(sample.ignore[indices].any(axis=0) & ~sample.masks[indices].any(axis=0))


class Scoring:
    """`reason` (ReasonSeg, own photographs): gIoU and cIoU of one mask for each question.

    A further scoring is a class and a line in `SCORINGS`.

    Attributes:
        rejects: whether its benchmarks ask, in a prompt that is given, whether there is a target.
    """

    rejects = False

    def united(self, reply: Reply) -> np.ndarray:
        """(H, W) boolean, the one mask that answers a question: the union of its masks."""
        return np.asarray(reply.masks.any(axis=0))

    def found(self, reply: Reply, mask: np.ndarray) -> bool:
        """Whether the model says that there is such an object."""
        return reply.found

    def pairs(
        self, reply: Reply, mask: np.ndarray, targets: np.ndarray, ignore: np.ndarray | None
    ) -> tuple[tuple[int, int], ...]:
        """Intersections and unions in pixels of a reply, united to `mask`, and its targets (m, H, W)."""
        return (metrics.intersection_and_union(mask, np.asarray(targets.any(axis=0)), ignore),)

    def box_iou(self, mask: np.ndarray, truth: np.ndarray) -> float | None:
        """IoU of the boxes around mask and truth, where one mask answers."""
        return metrics.mask_box_iou(mask, truth)

    def row(self, sample: Sample, index: int, number: int, reply: Reply) -> QuestionResult:
        """Compare a reply with the truth of question `number` of sample `index`."""
        question = sample.questions[number]
        targets, mask = truths(sample, question), self.united(reply)
        truth = np.asarray(targets.any(axis=0))
        return QuestionResult(
            index=index,
            question=number,
            record=sample.record,
            query=question.text,
            answer=reply.answer,
            has_target=bool(question.targets),
            found=self.found(reply, mask),
            num_masks=len(reply.masks),
            truth_pixels=int(np.count_nonzero(truth)),
            pairs=self.pairs(reply, mask, targets, ignored(sample, question)),
            box_iou=self.box_iou(mask, truth),
            image_pixels=truth.size,
            cut=reply.cut,
        )

    def scores(self, rows: Sequence[QuestionResult]) -> Scores:
        """Scores by name from all rows of a benchmark; None where there is nothing to average."""
        overlaps = [overlap for row in rows for overlap in row.overlaps]
        return {"giou": metrics.giou(overlaps), "ciou": metrics.ciou(overlaps)}

    def terms(self, row: QuestionResult) -> Terms:
        """`scores` of one row as the ratios of sums that they are, for intervals."""
        overlaps = row.overlaps
        return {
            "giou": (sum(overlap.iou for overlap in overlaps), len(overlaps)),
            "ciou": (sum(overlap.intersection for overlap in overlaps), sum(overlap.union for overlap in overlaps)),
        }

    def intervals(self, rows: Sequence[QuestionResult]) -> Intervals:
        """95 % bootstrap intervals of `scores`, over images; None where there is nothing to average."""
        found = [self.terms(row) for row in rows]
        names = list(found[0])
        ends = ratio_intervals(
            np.array([[terms[name] for name in names] for terms in found]), [row.index for row in rows]
        )
        return {
            name: None if np.isnan(low) else (float(low), float(high))
            for name, (low, high) in zip(names, ends, strict=True)
        }


class ReferScoring(Scoring):
    """`refer` (RefCOCO, +, g): boxes and precision of masks as well and, where the model writes its answers, the share
    of phrases that it draws a mask for."""

    def scores(self, rows: Sequence[QuestionResult]) -> Scores:
        """See `Scoring`."""
        boxes = [row.box_iou for row in rows if row.box_iou is not None]
        ious = [overlap.iou for row in rows for overlap in row.overlaps]
        written = [row for row in rows if row.answer is not None]
        return {
            **super().scores(rows),
            "see_acc": metrics.share(row.found and row.drawn_pixels > 0 for row in written) if written else None,
            "p_box_0.5": metrics.precision(boxes, 0.5),
            "mean_box_iou": metrics.mean(boxes),
            **{f"p_{threshold}": metrics.precision(ious, threshold) for threshold in PRECISION_THRESHOLDS},
        }

    def terms(self, row: QuestionResult) -> Terms:
        """See `Scoring`."""
        boxes = [] if row.box_iou is None else [row.box_iou]
        ious = [overlap.iou for overlap in row.overlaps]
        above = {f"p_{least}": sum(iou > least for iou in ious) for least in PRECISION_THRESHOLDS}
        return {
            **super().terms(row),
            "see_acc": (row.found and row.drawn_pixels > 0, 1) if row.answer is not None else (0, 0),
            "p_box_0.5": (sum(iou > 0.5 for iou in boxes), len(boxes)),
            "mean_box_iou": (sum(boxes), len(boxes)),
            **{name: (count, len(ious)) for name, count in above.items()},
        }


class GresScoring(Scoring):
    """`gres` (gRefCOCO) and `zom` (Ref-ZOM): phrases may have no target.

    `giou` and `ciou` follow the lenient published rule, `giou_rela` and `ciou_rela` that of ReLA.

    Args:
        published: the lenient rule.
    """

    rejects = True

    def __init__(self, published: metrics.GresRule) -> None:
        self._published = published

    def scores(self, rows: Sequence[QuestionResult]) -> Scores:
        """See `Scoring`."""
        slots = [slot for row in rows for slot in _slots(row)]
        lenient, strict = metrics.gres(slots, self._published), metrics.gres(slots, metrics.RELA)
        return {
            "giou": lenient[0],
            "ciou": lenient[1],
            "giou_rela": strict[0],
            "ciou_rela": strict[1],
            "n_acc": metrics.no_target_accuracy(slots),
            "t_acc": metrics.target_accuracy(slots),
        }

    def terms(self, row: QuestionResult) -> Terms:
        """See `Scoring`."""
        slots = _slots(row)
        found: Terms = {}
        for suffix, rule in (("", self._published), ("_rela", metrics.RELA)):
            ious, intersections, unions = zip(*(metrics.counted(slot, rule) for slot in slots), strict=True)
            found |= {f"giou{suffix}": (sum(ious), len(ious)), f"ciou{suffix}": (sum(intersections), sum(unions))}
        for name, wanted in (("n_acc", False), ("t_acc", True)):
            judged = [slot.rejected != wanted for slot in slots if slot.has_target == wanted]
            found[name] = (sum(judged), len(judged))
        return found


def _slots(row: QuestionResult) -> list[metrics.SlotScore]:
    return [
        metrics.SlotScore(overlap=overlap, truth=row.truth_pixels, has_target=row.has_target, rejected=not row.found)
        for overlap in row.overlaps
    ]


class MuseScoring(Scoring):
    """`muse` (MUSE): several targets, each with a mask of its own, matched to the model's.

    Args:
        by_points: match as the published code, by BCE and Dice at drawn points, which are the same for all questions;
            replies must then have their logits.
    """

    def __init__(self, *, by_points: bool = False) -> None:
        self._points = drawn_points(0) if by_points else None

    def pairs(
        self, reply: Reply, mask: np.ndarray, targets: np.ndarray, ignore: np.ndarray | None
    ) -> tuple[tuple[int, int], ...]:
        """See `Scoring`."""
        if self._points is None or not len(targets):
            overlaps = match_masks(list(reply.masks), list(targets), ignore)
        else:
            if reply.logits is None:
                raise ValueError(
                    "matching at points needs the logits of the masks, which a file of masks does not have"
                )
            wanted = torch.from_numpy(targets).to(reply.logits.device)
            costs = point_costs(reply.logits, wanted, self._points).cpu().numpy()
            overlaps = match_by_costs(list(reply.masks), list(targets), costs, ignore)
        return tuple((overlap.intersection, overlap.union) for overlap in overlaps)

    def box_iou(self, mask: np.ndarray, truth: np.ndarray) -> float | None:
        """No one mask answers."""
        return None


class SeeScoring(Scoring):
    """`see` (R- and FP-RefCOCO, false-premise ReasonSeg): whether the model says rightly that there is a target."""

    def united(self, reply: Reply) -> np.ndarray:
        """The first mask alone."""
        return np.asarray(reply.masks[:1].any(axis=0))

    def found(self, reply: Reply, mask: np.ndarray) -> bool:
        """A mask without a pixel finds nothing."""
        return reply.found and bool(mask.any())

    def scores(self, rows: Sequence[QuestionResult]) -> Scores:
        """See `Scoring`."""
        return {**super().scores(rows), "see_acc": metrics.share(row.found == row.has_target for row in rows)}

    def terms(self, row: QuestionResult) -> Terms:
        """See `Scoring`."""
        return {**super().terms(row), "see_acc": (row.found == row.has_target, 1)}


MUSE_BY_POINTS = "muse, by points"

SCORINGS: dict[str, Scoring] = {
    "reason": Scoring(),
    "refer": ReferScoring(),
    "gres": GresScoring(metrics.PUBLISHED_GREFCOCO),
    "zom": GresScoring(metrics.PUBLISHED_ZOM),
    "muse": MuseScoring(),
    MUSE_BY_POINTS: MuseScoring(by_points=True),
    "see": SeeScoring(),
}
"""By the names that benchmarks have."""
