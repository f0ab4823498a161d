"""Pages of training samples to leaf through: pictures with every target, all turns of all conversations, the record.

FOLDER/index.html names the datasets; FOLDER/DATASET/page_1.html and so on show samples of one, with their pictures
beside them. There is no script and no server, and one sample is held at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.mixture import Mixture
from dataset.sample import AnswerPart, RejectSlot, Sample, TargetSlot, Turn
from dataset.source import Source
from utils import drawing
from utils.errors import DataError
from utils.page import Page, Words
from utils.pictures import save_picture

INDEX = "index.html"
_REJECTED, _UNUSED = "#69707a", "no answer"


@dataclass(frozen=True, kw_only=True)
class Leafing:
    """What is shown.

    Attributes:
        samples: of each dataset.
        on_page: samples of a page.
        seed: of the draws, as of a run.
    """

    samples: int = 24
    on_page: int = 12
    seed: int = 42


@dataclass(frozen=True)
class Section:
    """The pages of one dataset, for the table of contents."""

    name: str
    records: int
    shown: int
    first: str
    note: str


def draws(name: str, source: Source, leafing: Leafing) -> Iterator[tuple[Sample, tuple[str, ...]]]:
    """The first samples that a run of this dataset alone draws, each with what was skipped before it.

    Raises:
        DataError: if too many records in a row cannot be used.
    """
    mixture = Mixture([(name, source)], [1.0], seed=leafing.seed)
    for draw in range(leafing.samples):
        drawn = mixture[draw]
        yield drawn.sample, drawn.skipped


def folder_name(name: str) -> str:
    """A dataset's name as that of a folder: `refer_seg/refcoco+|val` is `refer_seg-refcoco+-val`."""
    return re.sub(r"[^\w.+-]", "-", name)


def write_section(root: Path, name: str, source: Source, leafing: Leafing) -> Section:
    """Write the pages of one dataset below `root`; what cannot be drawn is said on the last one."""
    folder, note, skipped, shown = root / folder_name(name), "", 0, 0
    folder.mkdir(parents=True)
    pages = -(-leafing.samples // leafing.on_page)
    samples = draws(name, source, leafing)
    for number in range(1, pages + 1):
        page = Page(f"{name}, page {number} of {pages}")
        page.links(_ways(number, pages))
        for _ in range(min(leafing.on_page, leafing.samples - shown)):
            try:
                sample, passed = next(samples)
            except DataError as error:
                note = str(error)
                page.text(note)
                break
            shown, skipped = shown + 1, skipped + len(passed)
            show(page, folder, sample, shown)
        last = number if note else pages
        page.links(_ways(number, last))
        page.write(folder / f"page_{number}.html")
        if note:
            break
    if skipped:
        note = f"{skipped} bad records were replaced by others. {note}".strip()
    return Section(name, len(source), shown, f"{folder.name}/page_1.html", note)


def _ways(number: int, pages: int) -> list[tuple[str, str | None]]:
    return [
        ("previous", f"page_{number - 1}.html" if number > 1 else None),
        (f"page {number} of {pages}", None),
        ("next", f"page_{number + 1}.html" if number < pages else None),
        ("all datasets", f"../{INDEX}"),
    ]


def show(page: Page, folder: Path, sample: Sample, number: int) -> None:
    """Add a sample to a page, and its picture to the page's folder."""
    page.heading(f"Sample {number}")
    file = f"{number:05d}.jpg"
    save_picture(folder / file, drawing.targets_picture(sample.image, sample.masks, sample.void))
    height, width = sample.image.shape[:2]
    targets = f"{len(sample.masks)} target{'' if len(sample.masks) == 1 else 's'}"
    grey = ", grey: neither target nor background" if sample.void is not None and sample.void.any() else ""
    page.picture(file, f"{sample.record}; {width} x {height}, {targets}{grey}")
    for count, conversation in enumerate(sample.conversations, start=1):
        if len(sample.conversations) > 1:
            page.text(f"Conversation {count}")
        for turn in conversation.turns:
            page.exchange(turn.question, words(turn, sample.masks))


def words(turn: Turn, masks: np.ndarray) -> Words:
    """An answer with its tokens, `<SEG>` with the number and on the colour of its target."""
    return [_word(part, masks) for part in (turn.answer or (_UNUSED,))]


def _word(part: AnswerPart, masks: np.ndarray) -> tuple[str, str | None]:
    if isinstance(part, TargetSlot):
        red, green, blue = drawing.TARGET_COLOURS[part.mask % len(drawing.TARGET_COLOURS)]
        empty = "" if masks[part.mask].any() else ", empty"
        return f"<SEG> {part.mask + 1}{empty}", f"rgb({red}, {green}, {blue})"
    return ("<REJ>", _REJECTED) if isinstance(part, RejectSlot) else (part, None)


def write_index(root: Path, sections: list[Section], leafing: Leafing) -> Path:
    """Write the table of contents, and give its path."""
    page = Page("Training samples")
    page.text(
        f"The first draws of each dataset with --seed {leafing.seed}, as a run of that dataset alone sees them. Each "
        "target has a colour and a number, which its <SEG> in the answer has too."
    )
    for section in sections:
        page.heading(section.name)
        page.text(f"{section.shown} samples of {section.records:,} records. {section.note}".strip())
        page.links([("look", section.first)])
    page.write(root / INDEX)
    return root / INDEX
