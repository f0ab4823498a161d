"""metrics.npz: the published scores of given logits, by the formulas of `utils.metrics`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from tests.parity.context import Context
from tests.parity.reference import Fixture
from utils import metrics

VOID = 255


@dataclass(frozen=True)
class Pair:
    """A predicted mask (logits) and its truth (labels), and whether the model wrote <REJ> in its slot."""

    logits: np.ndarray
    truth: np.ndarray
    rejected: bool

    def overlap(self, value: int, *, closed: bool) -> tuple[int, int]:
        """Intersection and union of the pixels with one label; `closed` also counts a logit of 0 as mask."""
        mask = self.logits >= 0 if closed else self.logits > 0
        return metrics.intersection_and_union(mask == bool(value), self.truth == value, self.truth == VOID)


def check_scores(fixture: Fixture, context: Context) -> None:
    """Every array of metrics.npz."""
    ids = context.model.config.token_ids
    slots = (ids["segment"], ids["reject"])
    for protocol, check in (("validate", _check_validate), ("gres", _check_gres), ("rec", _check_boxes)):
        images = sum(name.startswith(f"{protocol}.") and name.endswith(".gt") for name in fixture.names)
        pairs = [list(_pairs(fixture, f"{protocol}.{image}", slots)) for image in range(images)]
        flat = list(chain.from_iterable(pairs))
        count = int(fixture.input(f"{protocol}.n"))
        fixture.add(f"{protocol}.n", count in (images, len(flat)), note=f"{images} images, {len(flat)} masks")
        check(fixture, flat)


def _pairs(fixture: Fixture, image: str, slots: tuple[int, int]) -> Iterator[Pair]:
    ids = fixture.input(f"{image}.output_ids").reshape(-1)
    rejected = (ids[np.isin(ids, slots)] == slots[1]).tolist()
    logits, truth = fixture.input(f"{image}.pred_logits"), fixture.input(f"{image}.gt")
    # Masks without a slot of their own were not rejected.
    rejected += [False] * (len(logits) - len(rejected))
    for mask, label, is_rejected in zip(logits, truth, rejected, strict=False):
        yield Pair(mask, label, is_rejected)


def _check_counts(fixture: Fixture, name: str, pairs: list[Pair], *, closed: bool) -> list[tuple[int, int]]:
    counts = np.array([[pair.overlap(value, closed=closed) for value in (0, 1)] for pair in pairs])
    fixture.check(name, counts.transpose(0, 2, 1))
    return [(int(both), int(either)) for both, either in counts[:, 1]]


def _check_validate(fixture: Fixture, pairs: list[Pair]) -> None:
    counts = _check_counts(fixture, "validate.per_mask_inter_union", pairs, closed=False)
    scores = [metrics.TargetScore(intersection=both, union=either) for both, either in counts]
    fixture.check("validate.giou", metrics.giou(scores))
    fixture.check("validate.ciou", metrics.ciou(scores))


def _check_gres(fixture: Fixture, pairs: list[Pair]) -> None:
    counts = _check_counts(fixture, "gres.per_mask_inter_union", pairs, closed=True)
    slots = [
        metrics.SlotScore(
            overlap=metrics.TargetScore(intersection=both, union=either),
            truth=int(np.count_nonzero(pair.truth)),
            has_target=bool(pair.truth.any()),
            rejected=pair.rejected,
        )
        for pair, (both, either) in zip(pairs, counts, strict=True)
    ]
    accuracies = [metrics.no_target_accuracy(slots), metrics.target_accuracy(slots)]
    for dataset, rule in (("grefcoco", metrics.PUBLISHED_GREFCOCO), ("refzom", metrics.PUBLISHED_ZOM)):
        values = np.array([*metrics.gres(slots, rule), *accuracies], dtype=float)
        fixture.check(f"gres.{dataset}.giou_ciou_Nacc_Tacc", values)


def _check_boxes(fixture: Fixture, pairs: list[Pair]) -> None:
    for name, obeys in (("as_run", False), ("with_output_ids", True)):
        ious = [_box_iou(pair, empty=obeys and pair.rejected) for pair in pairs]
        fixture.check(f"rec.acc_meaniou_{name}", np.array([metrics.precision(ious, 0.5), metrics.mean(ious)]))


def _box_iou(pair: Pair, *, empty: bool) -> float:
    found = (pair.logits > 0) & (not empty)
    return metrics.mask_box_iou(found, (pair.truth > 0) & (pair.truth != VOID))
