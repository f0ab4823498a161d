"""The quick start's page: figures, curves and pictures of its run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.page import Curve, Page

FILE = "index.html"
CURVES = {
    "loss of the answer's text (ce)": ("train/ce",),
    "loss of masks": ("train/mask_bce", "train/mask_dice"),
    "loss of the cycles": ("train/t2m_bce", "train/t2m_dice", "train/m2t_bce", "train/m2t_dice"),
}


def write_page(root: Path, summary: dict[str, Any], pictures: Path) -> Path:
    """Write index.html into the run folder, and give its path.

    Args:
        root: the run folder.
        summary: as summary.json holds it.
        pictures: folder in `root` with the evaluation's pictures.
    """
    from utils.run_folder import METRICS_FILE, read_metrics

    page = Page("AnchorSeg quick start")
    page.text(
        "A question goes in, a mask comes out. Everything here was made on this machine: a model was trained from two "
        "small pretrained parts on drawn scenes, merged, and asked about scenes and wordings that it had not seen. "
        "Green is the truth, orange what the model draws, and the map on the right shows where <SEG> looks."
    )
    page.heading("First answers: the miniature that comes with the project")
    page.picture("first/all.png", "The last line of each picture is the answer that the model wrote.")
    page.heading("Scores on unseen scenes and wordings")
    scores(page, summary)
    page.heading("By kind of question")
    page.table(
        ("kind", "gIoU", "95 % interval", "questions"),
        [
            (kind, f"{row['giou']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}", str(row["questions"]))
            for kind, row in summary["by_kind"].items()
        ],
    )
    page.heading("Training")
    page.text(
        f"{summary['train_seconds']:.0f} s; at most {summary['peak_rss_gb']:.2f} GB of memory in all; the merged model "
        f"differs from the trained one by at most {summary['merged_max_abs_diff']:.1e}."
    )
    metrics = read_metrics(root / METRICS_FILE)
    for title, names in CURVES.items():
        curves = {name.removeprefix("train/"): curve(metrics, name) for name in names}
        page.curves(curves, across="step", title=title)
    validation = {name: curve(metrics, name) for row in metrics for name in row if name.endswith("giou")}
    if validation:
        page.curves(validation, across="step", title="gIoU on validation scenes")
    page.heading("Answers of the model that was trained here")
    for picture in sorted(pictures.rglob("*.png")):
        page.picture(picture.relative_to(root).as_posix(), picture.parent.name)
    page.write(root / FILE)
    return root / FILE


def scores(page: Page, summary: dict[str, Any]) -> None:
    """The table of scores, and what its words mean."""
    named = {
        "forced": "trained here, answer given",
        "generate": "trained here, answer written by the model",
        "shipped": "shipped miniature, answer given",
    }
    page.table(
        ("model", "gIoU", "95 % interval", "cIoU", "95 % interval"),
        [(title, *(cell for score in ("giou", "ciou") for cell in _cells(summary[name], score)))
         for name, title in named.items()],
    )  # fmt: skip
    page.text(
        f"{summary['num_eval_samples']} scenes. gIoU is the mean over questions of the overlap of mask and truth, "
        "intersection over union; cIoU the summed intersection over the summed union, in which large objects weigh "
        'more. Published numbers are of the kind "answer given".'
    )


def _cells(found: dict[str, Any], score: str) -> tuple[str, str]:
    low, high = found["intervals"][score]
    return f"{found[score]:.3f}", f"{low:.3f} to {high:.3f}"


def curve(metrics: Sequence[dict[str, Any]], name: str) -> Curve:
    """Steps and values of a logged metric."""
    return [(row["step"], row[name]) for row in metrics if row.get(name) is not None]
