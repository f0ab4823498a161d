"""Answers in words for a page: query banks as numbers, dialogues as escaped HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

NO_TARGET = "No target: the model found nothing that answers the question."
WORDS_ALONE = "Answered in words alone, as chosen: no mask was asked for."


def readable(text: str, bank: Sequence[str]) -> str:
    """An answer with `[1]`, `[2]`, ... in place of its query banks.

    Args:
        text: what the model wrote.
        bank: the names of a bank's tokens, `<SEG>` last.
    """
    *latents, segment = map(re.escape, bank)
    tokens = rf"(?:(?:{'|'.join(latents)})\s*)*{segment}" if latents else segment
    numbers = iter(range(1, text.count(bank[-1]) + 1))
    return re.sub(tokens, lambda _: f"[{next(numbers)}]", text).strip()


def dialogue_html(turns: Sequence[tuple[str, str]]) -> str:
    """Questions and their answers, the oldest first."""
    rows = (f"<dt>{escape(question)}</dt><dd>{escape(answer)}</dd>" for question, answer in turns)
    return f"<dl class='dialogue'>{''.join(rows)}</dl>" if turns else ""


def notice_html(text: str, kind: str) -> str:
    """One sentence on the answer; `kind` is its class in the style sheet."""
    return f"<p class='notice {kind}' role='status'>{escape(text)}</p>"
