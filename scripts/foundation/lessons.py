"""Lessons: dialogues about a drawn scene, in words alone, from which tiny-llava learns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataset.drawn.objects import COLOURS, KINDS, SceneObject
from dataset.drawn.queries import plural, scene_intents
from dataset.drawn.wordings import FUNCTIONS

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
PHRASE = ("What is {text} in this image?", "Which object is {text}?", "Name {text}.")
"""Questions for a query that is no sentence."""
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "middle", "right")


@dataclass(frozen=True)
class Lesson:
    """Questions with their answers about one scene, and the objects that the first answer names."""

    kind: str
    turns: tuple[tuple[str, str], ...]
    targets: tuple[int, ...] = ()


def full_name(item: SceneObject) -> str:
    """Texture, colour and kind."""
    return " ".join(word for word in (item.texture, item.colour, item.kind) if word != "plain")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def naming(objects: Sequence[SceneObject], targets: Sequence[int]) -> str:
    """A sentence that names some objects, from left to right."""
    ordered = sorted(targets, key=lambda index: objects[index].centre[0])
    names = [f"the {full_name(objects[index])}" for index in ordered]
    return f"{'It is' if len(names) == 1 else 'They are'} {_listed(names)}."


def referring(
    rng: np.random.Generator, objects: tuple[SceneObject, ...], longer_side: int, split: str = "train"
) -> list[Lesson]:
    """Which objects every unambiguous query of a scene means, in one wording each."""
    found = []
    for kind, intents in scene_intents(objects, longer_side).items():
        for intent in intents:
            filler = intent.fillers[rng.integers(len(intent.fillers))]
            wordings = intent.wordings[split]
            text = wordings[rng.integers(len(wordings))].format(a=filler)
            if not text.endswith((".", "?")):
                text = PHRASE[rng.integers(len(PHRASE))].format(text=text)
            found.append(Lesson(kind, ((text, naming(objects, intent.targets)),), intent.targets))
    return found


def counting(rng: np.random.Generator, objects: Sequence[SceneObject]) -> list[Lesson]:
    """How many objects there are, in all and of a colour, a kind or a texture."""
    found = [Lesson("count", (("How many objects are there?", f"There are {NUMBERS[len(objects)]} objects."),))]
    colour, kind = str(rng.choice(list(COLOURS))), objects[int(rng.integers(len(objects)))].kind
    values = {f"{colour} objects": sum(o.colour == colour for o in objects)}
    values[plural(kind)] = sum(o.kind == kind for o in objects)
    values["striped objects"] = sum(o.texture == "striped" for o in objects)
    values["dotted objects"] = sum(o.texture == "dotted" for o in objects)
    for many, count in values.items():
        one = many.replace("objects", "object") if many.endswith("objects") else kind
        counted = f"There is one {one}." if count == 1 else f"There are {NUMBERS[count]} {many}."
        found.append(Lesson("count", ((f"How many {many} are there?", counted),)))
    return found


def _named(objects: Sequence[SceneObject], item: SceneObject) -> str:
    alone = sum(o.kind == item.kind for o in objects) == 1
    return f"the {item.kind}" if alone else f"the {item.colour} {item.kind}"


def properties(rng: np.random.Generator, objects: Sequence[SceneObject]) -> list[Lesson]:
    """Colour, texture and use of an object, and a dialogue about one."""
    found = []
    for item in objects:
        name = _named(objects, item)
        if name == f"the {item.kind}":
            found.append(Lesson("colour", ((f"What colour is {name}?", f"It is {item.colour}."),)))
        found.append(Lesson("texture", ((f"Is {name} plain, striped or dotted?", f"It is {item.texture}."),)))
    item = objects[int(rng.integers(len(objects)))]
    uses = [text for text in FUNCTIONS[item.kind]["train"] if not text.endswith((".", "?"))]
    use = uses[rng.integers(len(uses))]
    found.append(Lesson("use", ((f"What is the {item.kind}?", f"It is {use}."),)))
    kinds = Counter(o.kind for o in objects)
    if kinds[item.kind] == 1:
        first = (f"Which object is {use}?", f"It is the {full_name(item)}.")
        found.append(Lesson("dialogue", (first, ("What colour is it?", f"It is {item.colour}."))))
    return found


def existence(rng: np.random.Generator, objects: Sequence[SceneObject]) -> list[Lesson]:
    """Whether there is an object of a colour and a kind: one that is there, and one that may not be."""
    there = objects[int(rng.integers(len(objects)))]
    pairs = [(there.colour, there.kind), (str(rng.choice(list(COLOURS))), there.kind)]
    pairs.append((there.colour, str(rng.choice(list(KINDS)))))
    known = {(o.colour, o.kind) for o in objects}
    return [
        Lesson("exists", ((f"Is there a {colour} {kind}?", "Yes." if (colour, kind) in known else "No."),))
        for colour, kind in pairs
    ]


def comparing(rng: np.random.Generator, objects: Sequence[SceneObject]) -> list[Lesson]:
    """Which of two objects is larger, further left, or higher, where it is so by a margin."""
    one, other = (objects[int(index)] for index in rng.permutation(len(objects))[:2])
    names = {_named(objects, item): item for item in (one, other)}
    asked = f"{_listed(list(names)).replace(' and ', ' or ')}"
    area, left, top = np.array([(o.area, -o.centre[0], -o.centre[1]) for o in names.values()]).T
    found = []
    for word, values in {"larger": area, "further left": left, "higher": top}.items():
        clear = values.max() > 1.3 * values.min() if word == "larger" else abs(values[0] - values[1]) > 14
        if clear:
            answer = list(names)[int(values.argmax())]
            found.append(Lesson("compare", ((f"Which is {word}, {asked}?", f"It is {answer}."),)))
    return found


def places(objects: Sequence[SceneObject], size: tuple[int, int]) -> list[Lesson]:
    """What is in a ninth of the picture of (height, width) pixels, where one object alone is."""
    ninths = [
        (ROWS[min(int(3 * o.centre[1] / size[0]), 2)], COLUMNS[min(int(3 * o.centre[0] / size[1]), 2)]) for o in objects
    ]
    found = []
    for index, (row, column) in enumerate(ninths):
        if ninths.count((row, column)) == 1:
            place = "in the middle" if row == column == "middle" else f"at the {row} {column}"
            answer = naming(objects, (index,))
            found.append(Lesson("place", ((f"What is {place} of the picture?", answer),), (index,)))
    return found


def caption(objects: Sequence[SceneObject]) -> Lesson:
    """All objects from left to right."""
    ordered = sorted(objects, key=lambda o: o.centre[0])
    return Lesson("caption", (("What is in the picture?", f"There is a {_listed([full_name(o) for o in ordered])}."),))


def lessons(rng: np.random.Generator, objects: tuple[SceneObject, ...], size: tuple[int, int]) -> list[Lesson]:
    """Every lesson of a scene of (height, width) pixels; those that refer come twice, in different wordings."""
    longer = max(size)
    return [
        *referring(rng, objects, longer),
        *referring(rng, objects, longer),
        *counting(rng, objects),
        *properties(rng, objects),
        *existence(rng, objects),
        *comparing(rng, objects),
        *places(objects, size),
        caption(objects),
    ]
