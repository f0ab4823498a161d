"""metrics.npz: the published scores of given logits, from this project's pixel counts and boxes.

The scores of gRefCOCO and of boxes are formulas of the published evaluation alone; they are written out here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from scripts.parity.context import Context
from scripts.parity.reference import Fixture
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
    for dataset in ("grefcoco", "refzom"):
        name = f"gres.{dataset}.giou_ciou_Nacc_Tacc"
        fixture.check(name, _gres_scores(pairs, counts, counts_missed=dataset == "grefcoco"))


def _gres_scores(pairs: list[Pair], counts: list[tuple[int, int]], *, counts_missed: bool) -> np.ndarray:
    """gIoU, cIoU, and how often a slot without and with a target is judged rightly.

    Args:
        pairs: of all slots.
        counts: intersection and union of each.
        counts_missed: add what is drawn where nothing is to the union of cIoU.
    """
    empty = np.array([not pair.truth.any() for pair in pairs])
    rejected = np.array([pair.rejected for pair in pairs])
    both, either = np.array(counts).T
    ious = np.where(empty, rejected, both / (either + 1e-8))
    unions = either[~empty].sum() + (either[empty & ~rejected].sum() if counts_missed else 0)
    return np.array([ious.mean(), both[~empty].sum() / unions, rejected[empty].mean(), (~rejected[~empty]).mean()])


def _check_boxes(fixture: Fixture, pairs: list[Pair]) -> None:
    for name, obeys in (("as_run", False), ("with_output_ids", True)):
        ious = np.array([_box_iou(pair, empty=obeys and pair.rejected) for pair in pairs])
        fixture.check(f"rec.acc_meaniou_{name}", np.array([(ious > 0.5).mean(), ious.mean()]))


def _box_iou(pair: Pair, *, empty: bool) -> float:
    found = None if empty else metrics.box_of(pair.logits > 0)
    wanted = metrics.box_of((pair.truth > 0) & (pair.truth != VOID))
    if found is None or wanted is None:
        return float(found is wanted)
    return metrics.box_iou(found, wanted)
