"""Sentences: requests for a mask that go with a full sentence, and answers that cannot name their target."""

from __future__ import annotations

_VERBS = ("Please output", "Please give", "Please return", "Answer with", "Respond with", "Show me")
_MASKS = (
    "a segmentation mask.",
    "the segmentation mask.",
    "a mask.",
    "a mask of the region in question.",
    "a mask of everything you mean.",
    "a mask that marks the place.",
)

SENTENCE_QUESTIONS: tuple[str, ...] = (
    "{text} Please output segmentation mask.",
    *(f"{{text}} {verb} {mask}" for verb in _VERBS for mask in _MASKS),
    "{text} Segment it.",
    "{text} I would like to see the mask.",
    "{text} A segmentation mask will do as the answer.",
    "{text} Think about it, then segment the region.",
    "{text} Can you highlight that with a mask?",
    "{text} Could you segment the part that you have in mind?",
    "{text} Mark the answer in the image.",
    "{text} Outline the region, please.",
    "{text} What does its mask look like?",
    "Please answer with a segmentation mask: {text}",
    "Segment your answer to this: {text}",
    "Look at the image and reply with a mask. {text}",
    "I need a mask for the following. {text}",
)
"""Questions for a full sentence, which keeps its own punctuation."""

_OPENINGS = ("Sure,", "Certainly,", "Of course,", "All right,")
_FINDINGS = (
    "it is {seg}.",
    "here is the mask: {seg}.",
    "the mask is {seg}.",
    "the region is {seg}.",
    "I marked it: {seg}.",
)

SENTENCE_ANSWERS: tuple[str, ...] = (
    "{seg}.",
    "It is {seg}.",
    "Here is the mask: {seg}.",
    "The segmentation mask is {seg}.",
    "The answer is {seg}.",
    "My answer is this region: {seg}.",
    "This is what you are asking about: {seg}.",
    "The part of the image that you mean is {seg}.",
    "The following mask answers your question: {seg}.",
    "I would point to {seg}.",
    "That would be {seg}.",
    "You are looking for {seg}.",
    "The requested mask: {seg}.",
    "Your question leads to {seg}.",
    "I segmented the region for you: {seg}.",
    *(f"{opening} {finding}" for opening in _OPENINGS for finding in _FINDINGS),
)
"""Answers with one target whose name is not known."""
