"""ReasonSeg: questions for phrases and sentences, answers with one target, requests for an explanation."""

from __future__ import annotations

PHRASE_QUESTIONS: tuple[str, ...] = (
    "What is {text} in this image? Please output segmentation mask.",
    "What is {text} in this image? Please give the mask.",
    "Can you segment {text} in this image?",
    "Please segment {text} in the image.",
    "Where is {text} in this image? Please answer with the mask.",
    "Show {text} in this image with a segmentation mask.",
)
"""Questions for a phrase, such as "the umbrella"."""

SENTENCE_QUESTIONS: tuple[str, ...] = (
    "{text} Please output segmentation mask.",
    "{text} Please give the segmentation mask.",
    "{text} Please answer with the mask.",
    "{text} Show it with a segmentation mask.",
)
"""Questions for a full sentence."""

ANSWERS: tuple[tuple[str, str], ...] = (
    ("", "."),
    ("It is", "."),
    ("Sure,", "."),
    ("Sure, it is", "."),
    ("Here is the mask:", "."),
)
"""Text before and after a target's query bank."""

PHRASE_ANSWERS: tuple[tuple[str, str], ...] = (
    *ANSWERS,
    ("It is {text}:", "."),
    ("Sure, {text} is", "."),
    ("Sure, it is {text}:", "."),
    ("Here is {text}:", "."),
    ("This is {text}:", "."),
    ("The mask of {text} is", "."),
    ("Here is the mask of {text}:", "."),
)
"""Answers to a phrase, which they may repeat."""

EXPLANATION_REQUESTS: tuple[str, ...] = (
    "Please output segmentation mask and explain why.",
    "Please give the mask and the reason.",
    "Please answer with the mask and say why.",
)
"""Sentences appended when the answer also holds an explanation."""
