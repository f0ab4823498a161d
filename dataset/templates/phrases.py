"""Phrases: questions about one or several, and answers with one target (`sem_seg`, `refer_seg`).

A phrase has its own number and article, or none, so a wording fits "the dog", "dog" and "two dogs" wherever it can.
"""

from __future__ import annotations

_ANY_QUESTIONS = (
    "Can you segment {text} in this image?",
    "Please segment {text} in the image.",
    "Segment {text}.",
    "Could you mark {text} for me?",
    "Show me {text} in this picture.",
    "Please outline {text}.",
    "Find {text} in this photo and segment what you find.",
    "I would like to have {text} segmented.",
    "I am looking for {text}. Please show me the exact region.",
    "Separate {text} from the rest of the image.",
    "Which pixels belong to {text}?",
    "Where do you see {text}? Please answer by segmenting.",
    "Use segmentation to point out {text} in this scene.",
    "Cut {text} out of the background, please.",
)

PHRASE_QUESTIONS: tuple[str, ...] = (
    "What is {text} in this image? Please output segmentation mask.",
    "What is {text} in this image? Please respond with a mask.",
    "Which region is {text}? Please output its mask.",
    "Where is {text}? Answer with a segmentation mask.",
    *_ANY_QUESTIONS,
)
"""Questions about one phrase, such as "the umbrella"."""

SEVERAL_PHRASES_QUESTIONS: tuple[str, ...] = (
    "What are {text} in this image? Please output segmentation masks.",
    "What are {text} in this image? Please respond with a mask for each.",
    "Which regions are {text}? Please output their masks.",
    "Where are {text}? Answer with segmentation masks.",
    *_ANY_QUESTIONS,
)
"""Questions about several phrases, such as "the umbrella and the dog"."""

PHRASE_ANSWERS: tuple[str, ...] = (
    "{seg}.",
    "It is {seg}.",
    "Sure, {seg}.",
    "Sure, it is {seg}.",
    "Here is the mask: {seg}.",
    "{text}: {seg}.",
    "Sure, {text}: {seg}.",
    "{text} is {seg}.",
    "In this image, {text} is {seg}.",
    "Here is {text}: {seg}.",
    "This is {text}: {seg}.",
    "I segmented {text} for you: {seg}.",
    "The region of {text} is {seg}.",
    "The mask of {text} is {seg}.",
    "Sure, the mask of {text} is {seg}.",
    "The segmentation mask of {text} is {seg}.",
    "Here is the mask of {text}: {seg}.",
)
"""Answers to a phrase with one target; 12 repeat the phrase."""
