"""Prompts of the benchmarks, word for word as published: scores depend on them."""

from __future__ import annotations

PHRASE = "What is {text} in this image? Please output segmentation mask."
"""A phrase asked by itself: ReasonSeg with `is_sentence` false, and every phrase in `generate`."""

SENTENCE = "{text} Please output segmentation mask."
"""A full sentence: ReasonSeg with `is_sentence` true, and MUSE."""

ANSWER: tuple[str, str] = ("", ".")
"""Forced answer to one question: the query bank and a full stop."""

PHRASES = "What are {texts}in this image? Please output segmentation masks."
"""All phrases of an image in one question (RefCOCO and its relatives), joined by ", "; no blank before "in"."""

PHRASES_ANSWER: tuple[str, str, str] = ("Sure,", "{text}:", ".")
"""Forced answer to `PHRASES`: the opening, what stands before each slot (joined by ", "), and the end."""
