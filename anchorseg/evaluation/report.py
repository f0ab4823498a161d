"""report.html: the scores of an evaluation, where they come from, and what the worst and best answers look like.

The page is one file; its pictures, at most `pictures.MOST` of a group, benchmark and protocol, are in a folder beside
it (`report/`), with a `pictures.json` that says which questions they show. Scores that an evaluation kept from an
earlier one keep their pictures where their rows are still those of the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from anchorseg.evaluation.grouping import LENGTHS, SIZES, kind_of, length_group, size_group
from anchorseg.evaluation.intervals import mean_interval
from anchorseg.evaluation.pictures import Group, Shown
from anchorseg.evaluation.predictions import file_name, written
from anchorseg.evaluation.results import Entry, score_names
from utils.errors import DataError
from utils.files import read_json, write_bytes, write_json
from utils.page import Page
from utils.page_table import Column

FILE = "report.html"
_LIST = "pictures.json"
_BINS = 20
_TITLES: dict[Group, str] = {"worst": "Worst answers with a mask", "best": "Best answers"}
_COLUMNS = (
    Column("benchmark", "choice"), Column("protocol", "choice"), Column("record", "text"), Column("no.", "number"),
    Column("query", "text"), Column("kind", "choice"), Column("words", "number"), Column("target", "choice"),
    Column("size", "range"), Column("IoU", "range"), Column("masks", "number"), Column("found", "choice"),
    Column("answer", "text"), Column("picture", "link"),
)  # fmt: skip

Asked = tuple[str, str]
"""Benchmark and protocol."""
Row = Mapping[str, Any]
"""A question's result, as results.json holds it; those of earlier versions have no `image_pixels` and no `cut`."""
_NEEDED = ("index", "question", "record", "query", "answer", "has_target", "found", "num_masks", "truth_pixels", "iou")


@dataclass(frozen=True)
class _Picture:
    """A picture on disk."""

    group: str
    index: int
    question: int
    iou: float | None
    path: str


def pictures_folder(report: Path, asked: Asked) -> Path:
    """The folder of the pictures of one benchmark and protocol."""
    return report.with_suffix("") / file_name(asked[0]) / asked[1]


def write_pictures(report: Path, asked: Asked, shown: Mapping[Group, Sequence[Shown]]) -> None:
    """Write the pictures of one benchmark and protocol beside a report, in the place of earlier ones; other files stay.

    Raises:
        OutputError: if they cannot be written.
    """
    folder = pictures_folder(report, asked)
    written(folder, lambda: _write_pictures(folder, shown))


def _write_pictures(folder: Path, shown: Mapping[Group, Sequence[Shown]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _remove_listed(folder)
    listed = []
    for group, pictures in shown.items():
        for number, each in enumerate(pictures):
            name = f"{group}_{number:02d}_{each.index:04d}_{each.question}.jpg"
            write_bytes(folder / name, each.picture, durable=False)
            listed.append(
                {"group": group, "index": each.index, "question": each.question, "iou": each.iou, "file": name}
            )
    write_json(folder / _LIST, listed)


def _remove_listed(folder: Path) -> None:
    """Remove the pictures that the list of an earlier report names, and the list; other files stay."""
    try:
        names = [each["file"] for each in read_json(folder / _LIST, kind=list)]
    except (FileNotFoundError, DataError, KeyError, TypeError):
        return
    for name in names:
        if isinstance(name, str) and name == PurePath(name).name and (folder / name).is_file():
            (folder / name).unlink()
    (folder / _LIST).unlink()


def write_report(report: Path, title: str, entries: Mapping[Asked, Entry]) -> None:
    """Write the page.

    Args:
        report: its path.
        title: says what was evaluated.
        entries: by benchmark and protocol, as results.json holds them.

    Raises:
        OutputError: if it cannot be written.
        DataError: if rows lack something.
    """
    for asked, entry in entries.items():
        if any(name not in row for row in entry["rows"] for name in _NEEDED):
            raise DataError(
                report, f"rows of {', '.join(asked)} are not as an evaluation writes them; evaluate without --resume"
            )
    page = Page(title, wide=True)
    pictures = {asked: _pictures(report, asked, entry["rows"]) for asked, entry in entries.items()}
    page.heading("Scores")
    page.text("With 95 % intervals: bootstrap over images. Published numbers are those of the protocol forced.")
    _scores(page, entries)
    for asked, entry in entries.items():
        page.heading(_name(asked, entry))
        _groups(page, entry["rows"])
        for group, words in _TITLES.items():
            _wall(page, words, group, pictures[asked], entry["rows"])
    _failures(page, entries, pictures)
    page.heading("All questions")
    page.filtered_table(_COLUMNS, list(_table_rows(entries, pictures)))
    written(report, lambda: page.write(report))


def _name(asked: Asked, entry: Entry) -> str:
    return f"{asked[0]}, {asked[1]}{' (its prompt gives the answers away)' if entry.get('leaks') else ''}"


def _scores(page: Page, entries: Mapping[Asked, Entry]) -> None:
    names = list(dict.fromkeys(name for entry in entries.values() for name in score_names(entry)))
    rows = []
    for (benchmark, protocol), entry in entries.items():
        counts = [str(entry.get("num_samples", "")), str(entry.get("num_questions", len(entry["rows"])))]
        rows.append([benchmark, protocol, *counts, *(_score(entry, name) for name in names)])
    page.table(["benchmark", "protocol", "samples", "questions", *names], rows)


def _score(entry: Entry, name: str) -> str:
    value, ends = entry.get(name), (entry.get("intervals") or {}).get(name)
    if value is None:
        return "-" if name in entry else ""
    return f"{value:.4f}" + ("" if ends is None else f" ({ends[0]:.4f} to {ends[1]:.4f})")


def _groups(page: Page, rows: Sequence[Row]) -> None:
    """Histogram and tables of the questions that have a target and an IoU."""
    scored = [row for row in rows if row["has_target"] and row["iou"] is not None]
    if not scored:
        return
    counts = [0] * _BINS
    for row in scored:
        counts[min(int(row["iou"] * _BINS), _BINS - 1)] += 1
    page.bars(counts, across="IoU", title=f"IoU of the {len(scored)} questions that have a target")
    kinds: dict[str, list[Row]] = {}
    for row in scored:
        kinds.setdefault(kind_of(row["record"], row["query"]), []).append(row)
    _means(page, "kind of question", dict(sorted(kinds.items())))
    _means(page, "length", _split(scored, lambda row: length_group(row["query"]), [name for _, name in LENGTHS]))
    sized = [row for row in scored if row.get("image_pixels")]
    _means(page, "size of the target", _split(sized, lambda row: size_group(_share(row)), [name for _, name in SIZES]))


def _share(row: Row) -> float:
    return float(row["truth_pixels"] / row["image_pixels"])


def _split(rows: Sequence[Row], group: Callable[[Row], str], names: Sequence[str]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {name: [] for name in names}
    for row in rows:
        found[group(row)].append(row)
    return {name: part for name, part in found.items() if part}


def _means(page: Page, title: str, groups: Mapping[str, Sequence[Row]]) -> None:
    if not groups:
        return
    lines = []
    for name, rows in groups.items():
        mean, low, high = mean_interval([row["iou"] for row in rows], [row["index"] for row in rows])
        lines.append([name, str(len(rows)), f"{mean:.4f}", f"{low:.4f} to {high:.4f}"])
    page.table([title, "questions", "mean IoU", "95 % interval"], lines)


def _wall(page: Page, words: str, group: Group, pictures: Sequence[_Picture], rows: Sequence[Row]) -> None:
    """The pictures of a group, if there are any."""
    chosen = [picture for picture in pictures if picture.group == group]
    if not chosen:
        return
    named = {(row["index"], row["question"]): row for row in rows}
    page.subheading(words)
    page.wall([(each.path, _caption(named[each.index, each.question])) for each in chosen])


def _caption(row: Row) -> str:
    iou = "" if row["iou"] is None else f", IoU {row['iou']:.3f}"
    return f"{Path(row['record']).name}, question {row['question']}{iou}"


def _failures(page: Page, entries: Mapping[Asked, Entry], pictures: Mapping[Asked, Sequence[_Picture]]) -> None:
    """What went wrong before any overlap is looked at: no mask, a mask of nothing, an answer that was cut off."""
    page.heading("Failures of generation and rejection")
    lines = []
    for asked, entry in entries.items():
        rows = entry["rows"]
        with_target, written_rows = [r for r in rows if r["has_target"]], [r for r in rows if r["answer"] is not None]
        lines.append([
            *asked,
            _count(sum(not _drawn(row) for row in with_target), len(with_target)),
            _count(sum(_drawn(row) for row in rows if not row["has_target"]), len(rows) - len(with_target)),
            _count(sum(bool(row.get("cut")) for row in written_rows), len(written_rows)),
        ])  # fmt: skip
    page.table(
        ["benchmark", "protocol", "no mask, but a target", "a mask, but no target", "answer reached its longest"], lines
    )
    words: tuple[tuple[Group, str], ...] = (("missed", "No mask, but a target"), ("invented", "A mask, but no target"))
    for group, title in words:
        for asked, entry in entries.items():
            _wall(page, f"{title}: {asked[0]}, {asked[1]}", group, pictures[asked], entry["rows"])


def _drawn(row: Row) -> bool:
    return bool(row["found"] and row["num_masks"])


def _count(number: int, among: int) -> str:
    return f"{number} of {among}" if among else "-"


def _pictures(report: Path, asked: Asked, rows: Sequence[Row]) -> list[_Picture]:
    """The pictures on disk that are of these rows; those of an earlier evaluation are of rows with other IoU."""
    folder = pictures_folder(report, asked)
    try:
        root = folder.relative_to(report.parent).as_posix()
        found = [
            _Picture(each["group"], each["index"], each["question"], each["iou"], f"{root}/{each['file']}")
            for each in read_json(folder / _LIST, kind=list)
        ]
    except (FileNotFoundError, DataError, KeyError, TypeError):
        return []
    ious = {(row["index"], row["question"]): row["iou"] for row in rows}
    same = all(ious.get((each.index, each.question), "none") == each.iou for each in found)
    return found if same else []


def _table_rows(
    entries: Mapping[Asked, Entry], pictures: Mapping[Asked, Sequence[_Picture]]
) -> Iterator[tuple[object, ...]]:
    for asked, entry in entries.items():
        paths = {(each.index, each.question): each.path for each in pictures[asked]}
        for row in entry["rows"]:
            yield (
                *asked,
                Path(row["record"]).name,
                row["question"],
                row["query"],
                kind_of(row["record"], row["query"]),
                len(row["query"].split()),
                "target" if row["has_target"] else "no target",
                _share(row) if row.get("image_pixels") else None,
                row["iou"],
                row["num_masks"],
                "yes" if row["found"] else "no",
                row["answer"],
                paths.get((row["index"], row["question"])),
            )
