"""Scoring: from the masks that answer a question to a row, and from the rows of a benchmark to its scores.

A benchmark names one of six scorings. `reason` (ReasonSeg): gIoU and cIoU. `refer` (RefCOCO, +, g): boxes and
precision of masks as well, and, where the model writes its answers, the share of phrases that it draws a mask for.
`gres` (gRefCOCO) and `zom` (Ref-ZOM): phrases may have no target. `muse` (MUSE): several targets, each with a mask of
its own. `see` (R- and FP-RefCOCO, false-premise ReasonSeg): whether the model says rightly that there is a target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from dataset.sample import Question, Sample
from utils import metrics
from utils.matching import match_masks

PRECISION_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)

Scores = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the model gives for one question.

    Attributes:
        masks: (n, H, W) boolean, in the order of the targets written or of the slots given.
        found: false if it says that there is no such object.
        answer: what it wrote, or None where the answer was given.
        prior: (H, W) strongest spatial prior of its masks in [0, 1], or None.
    """

    masks: np.ndarray
    found: bool
    answer: str | None = None
    prior: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
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


def united(reply: Reply, scoring: str) -> np.ndarray:
    """(H, W) boolean, the one mask that answers a question: the union of its masks, the first alone in `see`."""
    masks = reply.masks[:1] if scoring == "see" else reply.masks
    return np.asarray(masks.any(axis=0))


def truths(sample: Sample, question: Question) -> np.ndarray:
    """(m, H, W) boolean masks of a question's targets."""
    return sample.masks[np.array(question.targets, dtype=int)]


def ignored(sample: Sample, question: Question) -> np.ndarray | None:
    """(H, W) boolean pixels that a question's scores leave out, never pixels of its own truth, or None."""
    if sample.ignore is None:
        return None
    indices = np.array(question.targets, dtype=int)
    return np.asarray(sample.ignore[indices].any(axis=0) & ~sample.masks[indices].any(axis=0))


def row_of(sample: Sample, index: int, number: int, reply: Reply, scoring: str) -> Row:
    """Compare a reply with the truth of question `number` of sample `index`."""
    question = sample.questions[number]
    wanted, void = truths(sample, question), ignored(sample, question)
    truth, mask = np.asarray(wanted.any(axis=0)), united(reply, scoring)
    each = scoring == "muse"
    if each:
        overlaps = match_masks(list(reply.masks), list(wanted), void)
        pairs = tuple((overlap.intersection, overlap.union) for overlap in overlaps)
    else:
        pairs = (metrics.intersection_and_union(mask, truth, void),)
    return Row(
        index=index,
        question=number,
        record=sample.record,
        query=question.text,
        answer=reply.answer,
        has_target=bool(question.targets),
        found=reply.found and (scoring != "see" or bool(mask.any())),
        num_masks=len(reply.masks),
        truth_pixels=int(np.count_nonzero(truth)),
        pairs=pairs,
        box_iou=None if each else metrics.mask_box_iou(mask, truth),
    )


def _overlap_scores(rows: Sequence[Row]) -> Scores:
    overlaps = [overlap for row in rows for overlap in row.overlaps]
    return {"giou": metrics.giou(overlaps), "ciou": metrics.ciou(overlaps)}


def _refer_scores(rows: Sequence[Row]) -> Scores:
    boxes = [row.box_iou for row in rows if row.box_iou is not None]
    ious = [overlap.iou for row in rows for overlap in row.overlaps]
    written = [row for row in rows if row.answer is not None]
    return {
        **_overlap_scores(rows),
        "see_acc": metrics.share(row.found and row.drawn_pixels > 0 for row in written) if written else None,
        "p_box_0.5": metrics.precision(boxes, 0.5),
        "mean_box_iou": metrics.mean(boxes),
        **{f"p_{threshold}": metrics.precision(ious, threshold) for threshold in PRECISION_THRESHOLDS},
    }


def _gres_scores(rows: Sequence[Row], *, published: metrics.GresRule) -> Scores:
    """`giou` and `ciou` by the lenient published rule, `giou_rela` and `ciou_rela` by that of ReLA."""
    slots = [
        metrics.SlotScore(overlap=overlap, truth=row.truth_pixels, has_target=row.has_target, rejected=not row.found)
        for row in rows
        for overlap in row.overlaps
    ]
    lenient, strict = metrics.gres(slots, published), metrics.gres(slots, metrics.RELA)
    return {
        "giou": lenient[0],
        "ciou": lenient[1],
        "giou_rela": strict[0],
        "ciou_rela": strict[1],
        "n_acc": metrics.no_target_accuracy(slots),
        "t_acc": metrics.target_accuracy(slots),
    }


def _see_scores(rows: Sequence[Row]) -> Scores:
    return {**_overlap_scores(rows), "see_acc": metrics.share(row.found == row.has_target for row in rows)}


SCORINGS: dict[str, Callable[[Sequence[Row]], Scores]] = {
    "reason": _overlap_scores,
    "refer": _refer_scores,
    "gres": partial(_gres_scores, published=metrics.PUBLISHED_GREFCOCO),
    "zom": partial(_gres_scores, published=metrics.PUBLISHED_ZOM),
    "muse": _overlap_scores,
    "see": _see_scores,
}
"""Name of a scoring -> scores by name from all rows of a benchmark; None where there is nothing to average."""

REJECTING = ("gres", "zom")
"""Scorings of benchmarks that ask, in a prompt that is given, whether there is a target."""
