"""Rows of the ablations, and the table and plot of their results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.errors import DataError
from utils.files import read_json, write_json


@dataclass(frozen=True)
class Row:
    """One row of the paper's tables, or one beside them.

    Attributes:
        name: of its folder.
        title: what it is, for the table.
        flags: of train_ds.py, beside the preset's.
        paper: gIoU and cIoU on ReasonSeg val that the paper states, in percent; None where it states none.
    """

    name: str
    title: str
    flags: tuple[str, ...] = ()
    paper: tuple[float, float] | None = None


# The paper's formulas; the grid has 9 x 9 patches in place of 24 x 24, and the Gaussian's width follows.
_PAPER = ("--cycle_scale", "1", "--cycle_shift", "0", "--token_target", "nearest", "--token_sigma", "2.625")
_NO_CYCLE = ("--no_token_to_mask", "--no_mask_to_token")

FULL = "full"
"""The row that all others are compared with."""
ROWS = (
    Row(FULL, "full: 8 queries, prior, both cycles (Exp. 5)", _PAPER, (68.3, 75.9)),
    Row("bank_4", "Table 4: 4 queries", (*_PAPER, "--num_latents", "3"), (64.8, 73.4)),
    Row("bank_16", "Table 4: 16 queries", (*_PAPER, "--num_latents", "15"), (64.1, 72.8)),
    Row("bank_32", "Table 4: 32 queries", (*_PAPER, "--num_latents", "31"), (67.4, 71.3)),
    Row(
        "exp_1", "Table 5, Exp. 1: no prior, no cycles",
        (*_PAPER, *_NO_CYCLE, "--no_inject_prior", "--no_spatial_prior"), (51.8, 61.4),
    ),
    Row("exp_2", "Table 5, Exp. 2: prior not given to SAM", (*_PAPER, "--no_inject_prior"), (58.4, 66.3)),
    Row("exp_3", "Table 5, Exp. 3: prior, no cycles", (*_PAPER, *_NO_CYCLE), (68.3, 71.6)),
    Row("exp_4", "Table 5, Exp. 4: no contextual queries", (*_PAPER, "--no_contextual_queries"), (67.5, 74.0)),
    Row("token_to_mask", "Table 6: token-to-mask alone", (*_PAPER, "--no_mask_to_token"), (67.4, 73.8)),
    Row("mask_to_token", "Table 6: mask-to-token alone", (*_PAPER, "--no_token_to_mask"), (64.4, 68.2)),
    Row("lisa", "LISA: one token, no prior", ("--head", "lisa", "--num_latents", "0"), (61.3, 62.9)),
    Row(
        "read", "READ: points beside one token",
        ("--head", "read", "--num_latents", "0", "--no_position_tables", "--point_divisor", "1"), (59.8, 67.6),
    ),
    Row(
        "gsva", "GSVA: one token, no prior, no tables",
        ("--head", "gsva", "--num_latents", "0", "--no_position_tables"),
    ),
    Row(
        "pixellm", "PixelLM: CLIP alone, two scales",
        (
            "--head", "pixellm", "--num_latents", "5", "--language_model", "llava-pixellm", "--mask_model", "pixellm",
            "--vision_pretrained", "tiny-llava",
        ),
    ),
    Row("anchors", "3 anchors, matched with objects", (*_PAPER, "--num_anchors", "3", "--anchor_instances")),
    Row("anchors_fused", "3 anchors, priors fused", (*_PAPER, "--num_anchors", "3", "--anchor_priors", "fused")),
    Row("nested", "banks of 1 to 7 latents, drawn", (*_PAPER, "--bank_length", "random")),
    Row("improved", "improved: scaled cycles, area target", ("--prior_range", "valid", "--void_pixels", "ignore")),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What a row's runs gave. Scores lie in [0, 1]; an interval is (low, high), or None where there is one run alone.

    Attributes:
        name: of the row.
        seeds: of its runs.
        giou: mean over runs.
        giou_interval: 95 % Student interval of that mean over seeds.
        ciou: mean over runs.
        ciou_interval: of it.
        difference: mean over questions of a row's IoU less the full method's, both averaged over the seeds that both
            have.
        difference_interval: its 95 % bootstrap interval over images.
    """

    name: str
    seeds: tuple[int, ...]
    giou: float
    giou_interval: tuple[float, float] | None
    ciou: float
    ciou_interval: tuple[float, float] | None
    difference: float
    difference_interval: tuple[float, float]


def seed_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % Student interval of a mean over independent runs; None for one run."""
    import numpy as np
    from scipy import stats

    if len(values) < 2:
        return None
    reach = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values) - reach), float(np.mean(values) + reach)


def read_runs(root: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Forced scores and rows of the runs that are finished, by row and seed.

    Raises:
        DataError: if the full method has none, for all is compared with it.
    """
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for row in ROWS:
        for file in sorted((root / "runs" / row.name).glob("seed_*/results.json")):
            content = read_json(file, fail=DataError, kind=dict)
            seed = int(file.parent.name.removeprefix("seed_"))
            found.setdefault(row.name, {})[seed] = content["benchmarks"]["ReasonSeg|test"]["forced"]
    if FULL not in found:
        raise DataError(root, f"no run of the row {FULL} is finished, and all others are compared with it")
    return found


def outcome(name: str, runs: dict[int, dict[str, Any]], full: dict[int, dict[str, Any]]) -> Outcome:
    """Average a row's runs, and compare them with the full method's of the same seeds."""
    import numpy as np

    from anchorseg.evaluation.intervals import mean_interval

    gious, cious = ([run[score] for run in runs.values()] for score in ("giou", "ciou"))
    shared = sorted(runs.keys() & full.keys())
    ious = [np.mean([[row["iou"] for row in part[seed]["rows"]] for seed in shared], axis=0) for part in (runs, full)]
    images = [row["record"].removesuffix(".json") for row in full[shared[0]]["rows"]]
    mean, low, high = mean_interval(ious[0] - ious[1], images)
    return Outcome(
        name=name,
        seeds=tuple(runs),
        giou=float(np.mean(gious)),
        giou_interval=seed_interval(gious),
        ciou=float(np.mean(cious)),
        ciou_interval=seed_interval(cious),
        difference=mean,
        difference_interval=(low, high),
    )


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown; scores in percent, as the paper's."""
    by_name = {row.name: row for row in ROWS}
    lines = [
        "| row | runs | gIoU | cIoU | gIoU less full, paired by question | paper gIoU | paper cIoU |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for found in outcomes:
        row = by_name[found.name]
        paper = ("", "") if row.paper is None else tuple(f"{score:.1f}" for score in row.paper)
        low, high = found.difference_interval
        difference = "" if found.name == FULL else f"{found.difference:+.1%} [{low:+.1%}, {high:+.1%}]".replace("%", "")
        lines.append(
            f"| {row.title} | {len(found.seeds)} | {_score(found.giou, found.giou_interval)} | "
            f"{_score(found.ciou, found.ciou_interval)} | {difference} | {paper[0]} | {paper[1]} |"
        )
    return "\n".join(lines)


def _score(mean: float, interval: tuple[float, float] | None) -> str:
    reach = "" if interval is None else f" ± {50 * (interval[1] - interval[0]):.1f}"
    return f"{100 * mean:.1f}{reach}"


def write_report(root: Path) -> str:
    """Write table.md, ablations.png and summary.json, and give the table.

    Raises:
        DataError: see `read_runs`.
    """
    runs = read_runs(root)
    outcomes = [outcome(name, found, runs[FULL]) for name, found in runs.items() if found.keys() & runs[FULL].keys()]
    text = table(outcomes)
    (root / "table.md").write_text(text + "\n", encoding="utf-8")
    write_json(root / "summary.json", [asdict(found) for found in outcomes])
    draw(root / "ablations.png", outcomes)
    return text


WIDTH, LEFT, RIGHT, TOP, LINE, LETTERS = 960, 400, 40, 64, 34, 17
INK, RULE, DOT = (30, 30, 30), (222, 222, 222), (40, 100, 180)


def draw(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Draw the mean gIoU of each row, in percent, with its interval over seeds."""
    import cv2
    import numpy as np

    from utils.lettering import BOLD, draw_text, line_height, text_width
    from utils.pictures import save_picture

    titles = {row.name: row.title for row in ROWS}
    ends = [end for found in outcomes for end in (found.giou_interval or (found.giou,))]
    low, high = 5 * np.floor(20 * min(ends)), 5 * np.ceil(20 * max(ends) + 0.01)
    bottom = TOP + LINE * len(outcomes)
    canvas = np.full((bottom + 60, WIDTH, 3), 255, np.uint8)

    def across(score: float) -> int:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (score - low) / (high - low))

    draw_text(canvas, "gIoU in percent, mean and 95 % interval over seeds", (20, 16), LETTERS + 3, INK, BOLD)
    for tick in np.arange(low, high + 1, 5):
        cv2.line(canvas, (across(tick), TOP), (across(tick), bottom), RULE, 1)
        text = f"{tick:g}"
        draw_text(canvas, text, (across(tick) - text_width(text, LETTERS) // 2, bottom + 10), LETTERS, INK)
    for number, found in enumerate(outcomes):
        y = TOP + LINE * number + LINE // 2
        draw_text(canvas, titles[found.name], (20, y - line_height(LETTERS) // 2), LETTERS, INK)
        first, last = found.giou_interval or (found.giou, found.giou)
        cv2.line(canvas, (across(100 * first), y), (across(100 * last), y), DOT, 2, cv2.LINE_AA)
        cv2.circle(canvas, (across(100 * found.giou), y), 5, DOT, -1, cv2.LINE_AA)
    save_picture(path, canvas)
