"""Phrases about drawn pictures that mean exactly known objects, and phrases that mean nothing in a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dataset.drawn.objects import COLOURS, KINDS, SceneObject
from dataset.drawn.queries import ATTRIBUTE, scene_intents
from tests.drawn.pictures import Picture

END = (".", "?")


@dataclass(frozen=True)
class Expression:
    """A text and the objects of a picture that it means, by index."""

    text: str
    targets: tuple[int, ...]


def expressions(picture: Picture, kinds: Iterable[str], *, sentences: bool = False) -> list[Expression]:
    """Everything that can be said about a picture by some kinds of query, in the wordings of its split.

    Args:
        picture: what is talked about.
        kinds: keys of `dataset.drawn.queries.SHARES`.
        sentences: full sentences, otherwise phrases.
    """
    intents = scene_intents(picture.objects, max(picture.size))
    return [
        Expression(template.format(a=filler), intent.targets)
        for kind in kinds
        for intent in intents[kind]
        for template in intent.wordings[picture.wording]
        if template.endswith(END) == sentences
        for filler in intent.fillers
    ]


def about(found: Iterable[Expression], targets: tuple[int, ...]) -> list[str]:
    """Texts of those expressions that mean exactly some objects."""
    return [expression.text for expression in found if expression.targets == targets]


def name(item: SceneObject) -> str:
    """Colour and kind, which no two objects of a scene share."""
    return f"{item.colour} {item.kind}"


def names(picture: Picture, targets: Iterable[int]) -> list[str]:
    """Colour and kind of some objects, with the article."""
    return [f"the {name(picture.objects[index])}" for index in targets]


def absent(picture: Picture) -> list[str]:
    """Every colour and kind that no object of a picture has."""
    there = {name(item) for item in picture.objects}
    return [f"{colour} {kind}" for colour in COLOURS for kind in KINDS if f"{colour} {kind}" not in there]


def mistaken(picture: Picture, index: int) -> list[str]:
    """Absent colours and kinds that an object could be taken for: its kind in another colour, or the reverse."""
    item = picture.objects[index]
    return [other for other in absent(picture) if other.split()[0] == item.colour or other.split()[1] == item.kind]


def attribute_wordings(picture: Picture) -> list[str]:
    """Templates of phrases that call an object by its name, `{a}`, in the wordings of the picture's split."""
    return [template for template in ATTRIBUTE[picture.wording] if not template.endswith(END)]


def pick(rng: np.random.Generator, texts: Sequence[str]) -> str:
    """One of some texts."""
    return texts[int(rng.integers(len(texts)))]


def pick_several(rng: np.random.Generator, texts: Sequence[str], most: int) -> list[str]:
    """Up to `most` different texts, at least one of them, in random order."""
    return [texts[index] for index in rng.permutation(len(texts))[: 1 + int(rng.integers(most))]]
