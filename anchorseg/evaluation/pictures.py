"""Pictures of predictions: one as a panel, the most telling of a benchmark, and those of fixed samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import cv2
import numpy as np

from anchorseg.evaluation.evaluator import Prediction
from anchorseg.evaluation.scoring import QuestionResult
from utils import drawing
from utils.distributed import all_gather_objects

MOST = 12
"""Pictures of a group in a report, of one benchmark under one protocol."""

Group = Literal["worst", "best", "missed", "invented"]
"""`missed`: no mask where there is a target; `invented`: a mask where there is none; `worst` and `best` are of the
other questions about targets."""

_QUALITY = 85


def panel_of(prediction: Prediction) -> np.ndarray:
    """(h, w, 3) uint8 RGB: the question, the image, truth, prediction and prior."""
    row = prediction.row
    return drawing.panel(
        prediction.sample.image,
        row.query,
        truth=prediction.truth,
        prediction=prediction.mask,
        ignore=prediction.ignore,
        prior=prediction.reply.prior,
        iou=row.iou,
        caption=row.answer or "",
    )


def groups_of(row: QuestionResult) -> tuple[tuple[Group, float], ...]:
    """The groups that a question may be shown in, with the number by which it ranks there, the lowest first."""
    drawn = row.found and row.num_masks > 0
    if not row.has_target:
        return (("invented", 0.0),) if drawn else ()
    if not drawn:
        return (("missed", 0.0),)
    if row.iou is None:
        return ()
    return ("worst", row.iou), ("best", -row.iou)


@dataclass(frozen=True)
class Shown:
    """One picture of a report.

    Attributes:
        group: why it is shown.
        rank: by which it is ordered, the lowest first.
        index: of the sample; question: its number within the sample.
        iou: of the answer.
        picture: a JPEG file.
    """

    group: Group
    rank: float
    index: int
    question: int
    iou: float | None
    picture: bytes

    @property
    def order(self) -> tuple[float, int, int]:
        """What decides between two of a group; the same for any number of ranks."""
        return self.rank, self.index, self.question


@dataclass
class Gallery:
    """The pictures of one benchmark under one protocol that a report shows, at most `most` of each group.

    A picture is drawn only when it may be shown, and kept as a file's bytes, so that memory is bounded.
    """

    most: int = MOST
    _kept: dict[Group, list[Shown]] = field(default_factory=dict)

    def __call__(self, prediction: Prediction) -> None:
        """Keep a prediction's picture where it is among the first of a group."""
        row = prediction.row
        wanted = [
            (group, rank) for group, rank in groups_of(row) if self._enters(group, (rank, row.index, row.question))
        ]
        if not wanted:
            return
        picture = _encoded(panel_of(prediction))
        for group, rank in wanted:
            shown = Shown(group, rank, row.index, row.question, row.iou, picture)
            self._kept[group] = self._first([*self._kept.get(group, []), shown])

    def of_all_ranks(self) -> dict[Group, list[Shown]]:
        """The first of each group over all ranks, each of which must call it."""
        parts = all_gather_objects(self._kept)
        return {
            group: self._first([shown for part in parts for shown in part.get(group, [])]) for group in get_args(Group)
        }

    def _enters(self, group: Group, order: tuple[float, int, int]) -> bool:
        kept = self._kept.get(group, [])
        return len(kept) < self.most or order < kept[-1].order

    def _first(self, shown: list[Shown]) -> list[Shown]:
        return sorted(shown, key=lambda each: each.order)[: self.most]


def _encoded(picture: np.ndarray) -> bytes:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done, picture.shape
    return data.tobytes()


@dataclass
class FixedPictures:
    """Pictures of the first question of a few samples, evenly spread and the same at every evaluation.

    Args:
        length: samples of the benchmark.
        count: how many are drawn.
    """

    length: int
    count: int
    _drawn: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.indices = frozenset(
            np.linspace(0, self.length - 1, min(self.count, self.length)).round().astype(int).tolist()
        )

    def __call__(self, prediction: Prediction) -> None:
        """Draw a prediction if it is of such a sample."""
        row = prediction.row
        if row.index in self.indices and row.question == 0:
            self._drawn[row.index] = panel_of(prediction)

    def of_all_ranks(self) -> dict[int, np.ndarray]:
        """Pictures (h, w, 3) uint8 by the sample's number, of all ranks, each of which must call it."""
        found = {index: picture for part in all_gather_objects(self._drawn) for index, picture in part.items()}
        return dict(sorted(found.items()))
