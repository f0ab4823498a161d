"""Several targets in one answer: a fragment for each, or all of them together.

In a joint answer `{seg}` stands for all slots, as in "..., ... and ...".
"""

from __future__ import annotations

FRAGMENTS: tuple[str, ...] = (
    "{seg}",
    "{text}: {seg}",
    "{text} is {seg}",
    "{text} is shown by {seg}",
    "{text} can be seen at {seg}",
    "here is {text}: {seg}",
    "this is {text}: {seg}",
    "I found {text}: {seg}",
    "I marked {text}: {seg}",
    "the region of {text} is {seg}",
    "the mask of {text} is {seg}",
    "the mask for {text} is {seg}",
    "the segmentation of {text} is {seg}",
)
"""One target each; 12 name it. The same fragment serves all targets of an answer."""

PLAIN_JOINT_ANSWERS: tuple[str, ...] = (
    "They are {seg}.",
    "Sure, {seg}.",
    "Sure, they are {seg}.",
    "Here are the masks: {seg}.",
    "The masks are {seg}.",
    "The answer is {seg}.",
)
"""Joint answers that name nothing."""

JOINT_ANSWERS: tuple[str, ...] = (
    "{text}: {seg}.",
    "Sure, {text}: {seg}.",
    "{text} are {seg}.",
    "Sure, {text} are {seg}.",
    "In this image, {text} are {seg}.",
    "{text} are shown by {seg}.",
    "{text} are, in this order, {seg}.",
    "In the order of your question, {text} are {seg}.",
    "Here are {text}: {seg}.",
    "As requested, here are {text}: {seg}.",
    "These are {text}: {seg}.",
    "The regions of {text} are {seg}.",
    "The masks of {text} are {seg}.",
    "Sure, the masks of {text} are {seg}.",
    "The segmentation masks of {text} are {seg}.",
    "Here are the masks of {text}: {seg}.",
    "For {text}, the masks are {seg}.",
    "One mask each for {text}: {seg}.",
    "I segmented {text} for you: {seg}.",
    "I found {text} in the image: {seg}.",
    "I marked {text} one by one: {seg}.",
    "You asked for {text}: {seg}.",
    *PLAIN_JOINT_ANSWERS,
)
"""Joint answers; 22 name the targets, as "a, b and c"."""
