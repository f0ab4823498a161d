"""Queries of the drawn scenes: what is asked, which objects it means, and wordings that differ between the splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataset.drawn.objects import SceneObject
from dataset.drawn.wordings import (
    ATTRIBUTE,
    FUNCTIONS,
    RELATION,
    SEVERAL,
    SUPERLATIVE,
    SUPERLATIVE_OF,
    SUPERLATIVES,
    Wordings,
)

AREA_MARGIN = 1.3
"""The largest object has at least this many times the next one's pixels."""

PLACE_MARGIN = 0.07
"""Least distance in a superlative of place or a relation, as a share of the scene's longer side."""

PLURALS = {"fish": "fishes"}

SHARES: dict[str, float] = {"attribute": 0.3, "function": 0.25, "superlative": 0.15, "relation": 0.15, "several": 0.15}
"""How often each kind of query is tried first."""


@dataclass(frozen=True)
class Query:
    """A query of one scene: its kind, its wordings, whether they are sentences, and the objects it means."""

    kind: str
    texts: tuple[str, ...]
    is_sentence: bool
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Intent:
    """A meaning: its kind, the wordings of every split, what fills them, and the objects meant."""

    kind: str
    wordings: Wordings
    fillers: tuple[str, ...]
    targets: tuple[int, ...]


def plural(kind: str) -> str:
    """Plural of a kind's name."""
    return PLURALS.get(kind, f"{kind}s")


def _names(objects: tuple[SceneObject, ...], index: int) -> tuple[str, ...]:
    """Every phrase that means exactly this object by its attributes."""
    item = objects[index]
    names = [f"the {item.colour} {item.kind}"]
    if _alone(objects, item, "kind"):
        names.append(f"the {item.kind}")
    if _alone(objects, item, "colour"):
        names.append(f"the {item.colour} object")
    if item.texture != "plain":
        if _alone(objects, item, "texture"):
            names.append(f"the {item.texture} object")
        if _alone(objects, item, "texture", "kind"):
            names.append(f"the {item.texture} {item.kind}")
        if _alone(objects, item, "texture", "colour"):
            names.append(f"the {item.texture} {item.colour} object")
    return tuple(names)


def _alone(objects: tuple[SceneObject, ...], item: SceneObject, *attributes: str) -> bool:
    """Whether no other object shares all of some attributes."""
    return sum(all(getattr(o, name) == getattr(item, name) for name in attributes) for o in objects) == 1


def attribute_intents(objects: tuple[SceneObject, ...]) -> list[Intent]:
    """Each object by kind, colour, texture, or two of them."""
    return [Intent("attribute", ATTRIBUTE, _names(objects, index), (index,)) for index in range(len(objects))]


def function_intents(objects: tuple[SceneObject, ...]) -> list[Intent]:
    """Each object that alone has its use."""
    kinds = Counter(o.kind for o in objects)
    return [
        Intent("function", FUNCTIONS[item.kind], ("",), (index,))
        for index, item in enumerate(objects)
        if kinds[item.kind] == 1
    ]


def _extremes(objects: tuple[SceneObject, ...], members: Sequence[int], margin: float) -> dict[str, int]:
    """By superlative the object that has it among some by a margin in pixels."""
    area = np.array([float(objects[index].area) for index in members])
    x, y = np.array([objects[index].centre for index in members]).T
    found = {}
    for name, value in {"large": area, "small": -area, "left": -x, "right": x, "high": -y, "low": y}.items():
        first, second = np.argsort(-value)[:2]
        if name in ("large", "small"):
            big, little = sorted((area[first], area[second]), reverse=True)
            clear = big >= AREA_MARGIN * little
        else:
            clear = value[first] - value[second] >= margin
        if clear:
            found[name] = members[int(first)]
    return found


def superlative_intents(objects: tuple[SceneObject, ...], margin: float) -> list[Intent]:
    """Extremes of size and place, among all objects and among those of a colour or a kind."""
    found = [
        Intent("superlative", SUPERLATIVE, SUPERLATIVES[name], (index,))
        for name, index in _extremes(objects, range(len(objects)), margin).items()
    ]
    for one, many, members in _groups(objects):
        wordings = {
            split: tuple(template.replace("{one}", one).replace("{many}", many) for template in templates)
            for split, templates in SUPERLATIVE_OF.items()
        }
        found += [
            Intent("superlative", wordings, SUPERLATIVES[name], (index,))
            for name, index in _extremes(objects, members, margin).items()
        ]
    return found


def relation_intents(objects: tuple[SceneObject, ...], margin: float) -> list[Intent]:
    """The one object beside another, where no other is near the limit."""
    x, y = np.array([o.centre for o in objects]).T
    found = []
    for index in range(len(objects)):
        names = _names(objects, index)
        others = [other for other in range(len(objects)) if other != index]
        distance = np.hypot(x - x[index], y - y[index])
        nearest, *further = sorted(others, key=lambda other: distance[other])
        if not further or distance[further[0]] >= 1.3 * distance[nearest]:
            found.append(Intent("relation", RELATION["near"], names, (nearest,)))
        sides = {"left": x[index] - x, "right": x - x[index], "above": y[index] - y, "below": y - y[index]}
        for side, offset in sides.items():
            if any(abs(offset[other]) < margin for other in others):
                continue
            beyond = [other for other in others if offset[other] > 0]
            if len(beyond) == 1:
                found.append(Intent("relation", RELATION[side], names, (beyond[0],)))
    return found


def _groups(objects: tuple[SceneObject, ...]) -> list[tuple[str, str, tuple[int, ...]]]:
    """Objects of one colour, kind or texture where there are several: what one and what many are called, and which."""
    found = []
    for attribute in ("colour", "kind", "texture"):
        for value, count in Counter(getattr(o, attribute) for o in objects).items():
            if count > 1 and value != "plain":
                members = tuple(i for i, o in enumerate(objects) if getattr(o, attribute) == value)
                one, many = (value, plural(value)) if attribute == "kind" else (f"{value} object", f"{value} objects")
                found.append((one, many, members))
    return found


def several_intents(objects: tuple[SceneObject, ...]) -> list[Intent]:
    """All objects of a colour, a kind or a texture that occurs more than once."""
    return [Intent("several", SEVERAL, (many,), members) for _, many, members in _groups(objects)]


def scene_intents(objects: tuple[SceneObject, ...], longer_side: int) -> dict[str, list[Intent]]:
    """Every unambiguous meaning in a scene, by kind of query."""
    margin = PLACE_MARGIN * longer_side
    return {
        "attribute": attribute_intents(objects),
        "function": function_intents(objects),
        "superlative": superlative_intents(objects, margin),
        "relation": relation_intents(objects, margin),
        "several": several_intents(objects),
    }


def draw_query(rng: np.random.Generator, objects: tuple[SceneObject, ...], longer_side: int, split: str) -> Query:
    """One unambiguous query of a scene, in the wordings of a split."""
    found = scene_intents(objects, longer_side)
    possible = {kind: intents for kind, intents in found.items() if intents}
    chances = np.array([SHARES[kind] for kind in possible])
    kind = list(possible)[rng.choice(len(possible), p=chances / chances.sum())]
    intent = possible[kind][rng.integers(len(possible[kind]))]
    filler = intent.fillers[rng.integers(len(intent.fillers))]
    wordings = [template.format(a=filler) for template in intent.wordings[split]]
    is_sentence = bool(rng.random() < 0.5)
    chosen = [text for text in wordings if text.endswith((".", "?")) == is_sentence]
    order = rng.permutation(len(chosen))[:5]
    return Query(kind, tuple(chosen[index] for index in order), is_sentence, intent.targets)
