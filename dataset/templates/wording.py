"""From what a user types to a prompt of the evaluation: which form a query has, and which prompts are whole already."""

from __future__ import annotations

import re
from typing import Literal

from dataset.templates import evaluation

Kind = Literal["auto", "phrase", "sentence", "prompt"]
"""What a query is: a phrase ("the cup"), a sentence ("Which one rolls?"), a whole prompt, which is sent as it is, or
whichever of them its words show."""

_ANSWER = r"\b(output|respond|reply|answer|give|show|return|draw|produce|provide|generate)\b[^.?!]*"
_INSTRUCTIONS = (
    # "Please output segmentation mask and explain why.", "Answer with segmentation masks"
    rf"{_ANSWER}\bsegmentation masks?\b|\bplease (also )?{_ANSWER}\bmasks?\b",
    # "Please segment X in this image.", "Where is the cup? Could you please segment it?"
    r"\bplease segment\b|\b(can|could|will|would) you (please |kindly )?segment\b|\byou to segment\b",
    # "Segment X.", "segment the cup"
    r"(^|[.?!] )segment\b.*[.?!]$|^segment (the|a|an|all|every|each|any|this|that|these|those)\b",
)
_WHOLE = re.compile("|".join(_INSTRUCTIONS), re.IGNORECASE | re.DOTALL)
_ENDS = re.compile(r"[.?!\u2026\u3002\uff1f\uff01\u061f]['\"\u201d\u2019)]*$")


def kind_of_query(query: str) -> Literal["phrase", "sentence", "prompt"]:
    """What the words of a query show.

    A prompt asks for a segmentation itself, as LISA's documented ones do ("What is the cup in this image? Please
    output segmentation mask.", "Can you segment the cup in this image?"); a sentence ends like one; all else is a
    phrase, however it is capitalised.
    """
    query = " ".join(query.split())
    if _WHOLE.search(query):
        return "prompt"
    return "sentence" if _ENDS.search(query) else "phrase"


def prompt_of_query(query: str, kind: Kind = "auto") -> str:
    """The prompt that is sent for a query: the evaluation's wording around a phrase or after a sentence.

    Args:
        query: what to look for, not empty; blanks around it do not count.
        kind: what the query is; "auto" is decided by `kind_of_query`.
    """
    query = query.strip()
    kind = kind_of_query(query) if kind == "auto" else kind
    templates = {"phrase": evaluation.PHRASE, "sentence": evaluation.SENTENCE, "prompt": "{text}"}
    return templates[kind].format(text=query)
