"""Groups of questions whose scores are told apart: by kind, by length, by the size of the target."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from dataset.templates.wording import kind_of_query

LENGTHS = ((5, "up to 5 words"), (10, "6 to 10 words"), (10**9, "more than 10 words"))
SIZES = (
    (0.01, "up to 1 % of the image"),
    (0.05, "1 to 5 % of the image"),
    (0.2, "5 to 20 % of the image"),
    (1.0, "more than 20 % of the image"),
)


def length_group(query: str) -> str:
    """A question's length in words."""
    return next(name for most, name in LENGTHS if len(query.split()) <= most)


def size_group(share: float) -> str:
    """The size of a target, of which the share of the image is given."""
    return next(name for most, name in SIZES if share <= most)


@cache
def annotated_kind(record: str) -> str | None:
    """The kind of question that an annotation file names itself, as drawn scenes do."""
    try:
        content = json.loads(Path(record).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    kind = content.get("query_kind") if isinstance(content, dict) else None
    return kind if isinstance(kind, str) else None


def kind_of(record: str, query: str) -> str:
    """The kind that the annotation names, or else phrase or sentence by the question's words."""
    return annotated_kind(record) or kind_of_query(query)
