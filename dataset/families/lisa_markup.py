"""Markup of LISA++: objects named inside a text by their ids, and the turns of a dialogue.

An object is `《12|cup》` or `<12|cup>` anywhere, and inside square brackets also `cup <12>` or `12|cup`, alone or as a
list. Everything else, brackets without an id included, is ordinary text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dataset.readers.checks import MalformedError
from dataset.sample import AnswerPart, TargetSlot


class Mark(NamedTuple):
    """An object named in a text: its id, and its label, which may be empty."""

    id: str
    label: str


Piece = str | Mark

_MARK = re.compile(r"《(\d+)\|([^《》]*)》")
_ANGLED = re.compile(r"<(\d+)\|([^<>]*)>")
_BRACKET = re.compile(r"\[([^\[\]]*)\]")
_AFTER_LABEL = re.compile(r"([^,;<>|《》]*)<(\d+)>")
_BARE = re.compile(r"(?<![《\d])(\d+)\|((?:(?!\band\s+\d+\|)[^,;|《》])*)")
_SEPARATOR = re.compile(r"》[\s,;]*(?:\band\b)?\s*《")
_SPEAKER = re.compile(r"<(person|robot)>\s*:", re.IGNORECASE)


def parse(text: str) -> tuple[Piece, ...]:
    """Words and marks of a text, in order.

    A bracket with marks loses its brackets, and marks listed in it are joined as in "a, b and c".
    """
    unified = _BRACKET.sub(_opened, _ANGLED.sub(r"《\1|\2》", text))
    pieces: list[Piece] = []
    words, *rest = _MARK.split(unified)
    pieces.append(words)
    for identity, label, words in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        pieces += [Mark(identity, re.sub(r"^\s*and\s", "", label).strip()), words]
    return tuple(piece for piece in pieces if piece)


def _opened(bracket: re.Match[str]) -> str:
    """A bracket whose marks all have the one form `《12|cup》`, or the bracket as it was if it has none."""
    inner = _BARE.sub(r"《\1|\2》", _AFTER_LABEL.sub(r"《\2|\1》", bracket[1]))
    if not _MARK.search(inner):
        return bracket[0]
    before, last, after = _SEPARATOR.sub("》, 《", inner).rpartition("》, 《")
    return f"{before}{last.replace(',', ' and')}{after}"


def with_slots(pieces: Sequence[Piece], slots: Mapping[str, TargetSlot]) -> tuple[AnswerPart, ...]:
    """Pieces with a slot in place of each mark whose id has one, and plain words in place of the others.

    A label that the words before it already say ("a lamp 《88|lamp》") is not said again.
    """
    texts: list[str] = [""]
    found: list[TargetSlot] = []
    for piece in pieces:
        if isinstance(piece, Mark) and piece.id in slots:
            found.append(slots[piece.id])
            texts.append("")
        else:
            texts[-1] = _continued(texts[-1], piece)
    parts: list[AnswerPart] = [texts[0].strip()]
    for slot, text in zip(found, texts[1:], strict=True):
        parts += [slot, text.strip()]
    return tuple(part for part in parts if part != "")


def _continued(text: str, piece: Piece) -> str:
    if isinstance(piece, str):
        return text + piece
    said = re.search(rf"(?<!\w){re.escape(piece.label)}\s*$", text, re.IGNORECASE)
    return text.rstrip() if said else text + piece.label


def plain(text: str) -> str:
    """A text with the labels in place of its marks."""
    return "".join(str(part) for part in with_slots(parse(text), {}))


def dialogue(text: str, name: str) -> list[tuple[str, str]]:
    """Questions with their answers, from turns `<person>: ... <robot>: ...`; a question left unanswered is dropped.

    Raises:
        MalformedError: if the turns do not alternate, one is empty, or no question is answered; `name` is the record's.
    """
    before, *rest = _SPEAKER.split(text)
    speakers, words = [speaker.lower() for speaker in rest[::2]], [part.strip() for part in rest[1::2]]
    if before.strip() or speakers != [("person", "robot")[place % 2] for place in range(len(speakers))]:
        raise MalformedError(f"{name}: <person>: and <robot>: must take turns, from the start of the dialogue on")
    if words and not words[-1]:
        words.pop()
    if not all(words):
        raise MalformedError(f"{name}: a turn of the dialogue is empty; give every turn some words")
    pairs = list(zip(words[::2], words[1::2], strict=False))
    if not pairs:
        raise MalformedError(f"{name}: the dialogue has no answered question: <person>: ... <robot>: ...")
    return pairs
