"""Queries of the drawn scenes: what is asked, which objects it means, and wordings that differ between the splits."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from dataset.drawn.objects import SceneObject

Wordings = dict[str, tuple[str, ...]]
"""Templates for each split; `{a}` is filled in. Those that end with . or ? are sentences."""

AREA_MARGIN = 1.3
"""The largest object has at least this many times the next one's pixels."""

PLACE_MARGIN = 0.07
"""Least distance in a superlative of place or a relation, as a share of the scene's longer side."""

ATTRIBUTE: Wordings = {
    "train": (
        "{a}", "{a} in the picture", "the place of {a}",
        "Which object is {a}?", "Find {a} in the picture.", "Show me {a}.", "Where can I see {a}?",
        "I am looking for {a}.",
    ),
    "val": ("{a} that I see", "Can you show me {a}?", "Please find {a}."),
    "test": ("{a} I am looking for", "Where is {a} in the picture?", "Please show me where {a} is."),
}  # fmt: skip

FUNCTIONS: dict[str, Wordings] = {
    "ball": {
        "train": ("something that could roll away", "the object that children kick and throw",
                  "Which object could roll away?", "The floor is not flat. What could roll down?",
                  "Children want to play outside. What can they kick?"),
        "val": ("the object that could roll", "What could children throw and kick?"),
        "test": ("what could roll down the floor", "Which object can children kick?", "What could roll away?"),
    },
    "umbrella": {
        "train": ("something that could keep you dry", "the object to take along in the rain",
                  "It starts to rain. What could keep you dry?", "Which object helps when it is raining outside?",
                  "I do not want to get wet. What can I take along?"),
        "val": ("something to take along when it is raining", "Which object could keep me dry?"),
        "test": ("the object that could keep you dry in the rain", "It is raining. What can I take along?",
                 "What helps when I do not want to get wet?"),
    },
    "cup": {
        "train": ("something to drink from", "the object that holds hot tea",
                  "I am thirsty. What can I drink from?", "Which object holds tea or water to drink?",
                  "Where would you pour the hot tea?"),
        "val": ("the object to drink tea from", "I want hot tea. What can I drink from?"),
        "test": ("something that holds tea", "Which object can I drink from?", "Where would I pour water to drink?"),
    },
    "tent": {
        "train": ("something to sleep in when camping", "the shelter for a night outside",
                  "We go camping. Where can we sleep?", "Which object gives shelter for the night?",
                  "Where would you sleep on a camping trip?"),
        "val": ("the shelter to sleep in", "Where can we sleep when camping?"),
        "test": ("the object that gives shelter when camping", "Where could we sleep for the night?",
                 "Which object do you sleep in on a trip?"),
    },
    "fish": {
        "train": ("the animal that lives in water", "something that can swim",
                  "Which object is an animal?", "What lives in the sea and can swim?",
                  "I look for the one with fins. Where is it?"),
        "val": ("the animal that can swim", "Which one lives in water?"),
        "test": ("the one that lives in the sea", "Which animal can swim?", "What lives in water and has fins?"),
    },
    "star": {
        "train": ("something seen in the sky at night", "the shape with five points",
                  "What shines in the sky at night?", "Which object has five points?",
                  "I look up at night. What do I see shine?"),
        "val": ("the one that shines at night", "Which shape has five points?"),
        "test": ("the object with five points", "What do I see in the sky at night?", "Which one shines in the sky?"),
    },
    "key": {
        "train": ("something that opens a lock", "the object for a locked door",
                  "The door is locked. What opens it?", "Which object opens a lock?",
                  "I can not open the door. What do I need?"),
        "val": ("something that opens the door", "What do I need for a lock?"),
        "test": ("the object that opens a locked door", "What do I need to open the lock?",
                 "Which object opens the door?"),
    },
    "candle": {
        "train": ("something that gives light in the dark", "the object that burns with a flame",
                  "The room is dark. What could give light?", "Which object burns with a small flame?",
                  "There is no light. What can I burn?"),
        "val": ("the object that gives light", "What could burn in the dark?"),
        "test": ("something that burns and gives light", "What could give light in a dark room?",
                 "Which object has a flame?"),
    },
}  # fmt: skip

_PLACE_TRAIN = ("the {a} object", "the {a} thing in the picture", "the {a} one of all",
                "Which object is the {a}?", "Find the {a} object.", "Show me the {a} of all objects.")  # fmt: skip
SUPERLATIVE: Wordings = {
    "train": _PLACE_TRAIN,
    "val": ("the {a} thing", "Show me the {a} object."),
    "test": ("the {a} of all objects", "Which one is the {a} of all?", "Find the {a} thing in the picture."),
}
SUPERLATIVES: dict[str, tuple[str, ...]] = {
    "large": ("largest", "biggest"),
    "small": ("smallest",),
    "left": ("leftmost",),
    "right": ("rightmost",),
    "high": ("highest",),
    "low": ("lowest",),
}

RELATION: dict[str, Wordings] = {
    "near": {
        "train": ("the object closest to {a}", "the thing next to {a}",
                  "Which object is closest to {a}?", "What is next to {a}?"),
        "val": ("the thing closest to {a}", "What is the object closest to {a}?"),
        "test": ("the object next to {a}", "Which thing is next to {a}?"),
    },
    "left": {
        "train": ("the object to the left of {a}", "the thing left of {a}",
                  "What is to the left of {a}?", "Which object is left of {a}?"),
        "val": ("the thing to the left of {a}", "What is left of {a}?"),
        "test": ("the object left of {a}", "Which thing is to the left of {a}?"),
    },
    "right": {
        "train": ("the object to the right of {a}", "the thing right of {a}",
                  "What is to the right of {a}?", "Which object is right of {a}?"),
        "val": ("the thing to the right of {a}", "What is right of {a}?"),
        "test": ("the object right of {a}", "Which thing is to the right of {a}?"),
    },
    "above": {
        "train": ("the object above {a}", "the thing higher than {a}",
                  "What is above {a}?", "Which object is higher than {a}?"),
        "val": ("the thing above {a}", "Which object is above {a}?"),
        "test": ("the object higher than {a}", "What is higher than {a}?"),
    },
    "below": {
        "train": ("the object below {a}", "the thing lower than {a}",
                  "What is below {a}?", "Which object is lower than {a}?"),
        "val": ("the thing below {a}", "Which object is below {a}?"),
        "test": ("the object lower than {a}", "What is lower than {a}?"),
    },
}  # fmt: skip

SEVERAL: Wordings = {
    "train": ("all the {a}", "every one of the {a}", "the {a} in the picture",
              "Find all the {a}.", "Where are the {a}?", "Show me every one of the {a}."),
    "val": ("all of the {a}", "Show me all the {a}."),
    "test": ("all the {a} in the picture", "Where are all the {a}?", "Find every one of the {a}."),
}  # fmt: skip

PLURALS = {"fish": "fishes"}

SHARES: dict[str, float] = {"attribute": 0.36, "function": 0.3, "superlative": 0.09, "relation": 0.07, "several": 0.18}
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
    kinds, colours = Counter(o.kind for o in objects), Counter(o.colour for o in objects)
    names = [f"the {item.colour} {item.kind}"]
    if kinds[item.kind] == 1:
        names.append(f"the {item.kind}")
    if colours[item.colour] == 1:
        names.append(f"the {item.colour} object")
    return tuple(names)


def attribute_intents(objects: tuple[SceneObject, ...]) -> list[Intent]:
    """Each object by colour, kind or both."""
    return [Intent("attribute", ATTRIBUTE, _names(objects, index), (index,)) for index in range(len(objects))]


def function_intents(objects: tuple[SceneObject, ...]) -> list[Intent]:
    """Each object that alone has its use."""
    kinds = Counter(o.kind for o in objects)
    return [
        Intent("function", FUNCTIONS[item.kind], ("",), (index,))
        for index, item in enumerate(objects)
        if kinds[item.kind] == 1
    ]


def superlative_intents(objects: tuple[SceneObject, ...], margin: float) -> list[Intent]:
    """Extremes of size and place that hold by a margin in pixels."""
    area = np.array([float(o.area) for o in objects])
    x, y = np.array([o.centre for o in objects]).T
    found = []
    for name, value in {"large": area, "small": -area, "left": -x, "right": x, "high": -y, "low": y}.items():
        first, second = np.argsort(-value)[:2]
        if name in ("large", "small"):
            big, little = sorted((area[first], area[second]), reverse=True)
            clear = big >= AREA_MARGIN * little
        else:
            clear = value[first] - value[second] >= margin
        if clear:
            found.append(Intent("superlative", SUPERLATIVE, SUPERLATIVES[name], (int(first),)))
    return found


def relation_intents(objects: tuple[SceneObject, ...], margin: float) -> list[Intent]:
    """The one object beside another, where no other is near the limit."""
    x, y = np.array([o.centre for o in objects]).T
    found = []
    for index in range(len(objects)):
        names = _names(objects, index)
        others = [other for other in range(len(objects)) if other != index]
        distance = np.hypot(x - x[index], y - y[index])
        nearest, next_one = sorted(others, key=lambda other: distance[other])[:2]
        if distance[next_one] >= 1.3 * distance[nearest]:
            found.append(Intent("relation", RELATION["near"], names, (nearest,)))
        sides = {"left": x[index] - x, "right": x - x[index], "above": y[index] - y, "below": y - y[index]}
        for side, offset in sides.items():
            if any(abs(offset[other]) < margin for other in others):
                continue
            beyond = [other for other in others if offset[other] > 0]
            if len(beyond) == 1:
                found.append(Intent("relation", RELATION[side], names, (beyond[0],)))
    return found


def several_intents(objects: tuple[SceneObject, ...]) -> list[Intent]:
    """All objects of a colour or of a kind that occurs more than once."""
    found = []
    for key, suffix in (("colour", "objects"), ("kind", "")):
        for value, count in Counter(getattr(o, key) for o in objects).items():
            if count > 1:
                targets = tuple(i for i, o in enumerate(objects) if getattr(o, key) == value)
                filler = f"{value} {suffix}" if suffix else plural(value)
                found.append(Intent("several", SEVERAL, (filler,), targets))
    return found


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
