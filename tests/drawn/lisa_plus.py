"""Instances, reasoned answers, dialogues and captions of drawn pictures in the layout of LISA++."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dataset.wording import listed, sampled
from tests.drawn.coco import object_id, rings, write_compact
from tests.drawn.phrases import expressions, name, names
from tests.drawn.pictures import COCO, Picture, Pools, save
from tests.drawn.vqa import which_questions
from utils.progress import Bar

Draw = Callable[[Picture, np.random.Generator], dict[str, Any]]

MARKUPS: tuple[tuple[str, str], ...] = (
    ("《{id}|{label}》", "{}"),
    ("<{id}|{label}>", "{}"),
    ("{label} <{id}>", "[{}]"),
    ("<{id}|{label}>", "[{}]"),
    ("《{id}|{label}》", "[{}]"),
    ("{id}|{label}", "[{}]"),
)
"""Forms of an object in a text, and what stands around a list of them."""


def identity(picture: Picture, index: int) -> str:
    """Id of an object in texts and masks."""
    return str(object_id(picture, index))


def marked(picture: Picture, targets: Sequence[int], form: int) -> str:
    """Some objects as a text that names their masks."""
    mark, around = MARKUPS[form % len(MARKUPS)]
    marks = [mark.format(id=identity(picture, index), label=name(picture.objects[index])) for index in targets]
    return around.format(", ".join(marks) if around != "{}" else listed(marks))


def outline(mask: np.ndarray, form: int) -> list[Any]:
    """A mask as one flat ring, a list of pairs, or a list of lists of pairs, which alone can hold several rings."""
    found = rings(mask)
    pairs = [[ring[place : place + 2] for place in range(0, len(ring), 2)] for ring in found]
    return pairs if len(found) > 1 else (found[0], pairs[0], pairs)[form % 3]


def shapes(picture: Picture, targets: Sequence[int], *, bare: bool) -> dict[str, Any]:
    """Masks of some objects by id: under "points" or "polygon" with a label, or, if `bare`, some without one."""
    masks = picture.masks()
    found: dict[str, Any] = {}
    for index in targets:
        form = (picture.id + index) % (3 if bare else 2)
        value = outline(masks[index], index)
        label = {"label name": name(picture.objects[index])}
        found[identity(picture, index)] = (label | {"points": value}, label | {"polygon": value}, value)[form]
    return found


def instances(picture: Picture, rng: np.random.Generator) -> dict[str, Any]:
    """Every object of a colour or kind, or some by name; the answer is a list of ids."""
    found = [e for e in expressions(picture, ("several",), sentences=True) if not e.text.endswith("?")]
    if found and rng.random() < 0.5:
        chosen = found[int(rng.integers(len(found)))]
        question, targets = chosen.text, list(chosen.targets)
    else:
        targets = sampled(len(picture.objects), 1 + int(rng.integers(3)), rng)
        question = f"Segment {listed(names(picture, targets))}."
    return {
        "img_path": COCO.format(picture.id),
        "English Question": question,
        "ID": [identity(picture, index) for index in targets],
        "points": shapes(picture, targets, bare=False),
    }


def reasoned(picture: Picture, rng: np.random.Generator) -> dict[str, Any]:
    """A question about use or place, and an answer in words."""
    question, targets = _question(picture, rng)
    return {
        "image_path": COCO.format(picture.id),
        "info": shapes(picture, targets, bare=True),
        "English Question": question,
        "English Answer": f"Of all objects in the picture it is {marked(picture, targets, picture.id)}.",
    }


def dialogue(picture: Picture, rng: np.random.Generator) -> dict[str, Any]:
    """Turns of which each names another object, the first one also in the question."""
    first, second = sampled(len(picture.objects), 2, rng)
    asked, targets = _question(picture, rng)
    seen = marked(picture, [first], picture.id)
    other = marked(picture, [second], picture.id + 1)
    turns = (
        ("What do you see?", f"I see {seen}, among others."),
        (f"What else is there besides {marked(picture, [first], 1)}?", f"There is also {other}."),
        (asked, f"It is {marked(picture, targets, picture.id + 2)}."),
    )
    return {
        "img_pth": COCO.format(picture.id),
        "info": shapes(picture, sorted({first, second, *targets}), bare=True),
        "output": " ".join(f"<person>: {question} <robot>: {answer}" for question, answer in turns),
    }


def caption(picture: Picture, rng: np.random.Generator) -> dict[str, Any]:
    """A sentence about some objects, with their masks."""
    targets = sampled(len(picture.objects), 2 + int(rng.integers(2)), rng)
    return {
        "image_path": COCO.format(picture.id),
        "info": shapes(picture, targets, bare=True),
        "English Question": "Describe the picture with masks of what you name.",
        "English Answer": f"The picture shows {marked(picture, targets, picture.id)} [drawn by a program].",
    }


def _question(picture: Picture, rng: np.random.Generator) -> tuple[str, tuple[int, ...]]:
    """A question that one object answers, and the object; by its name if there is no other question."""
    questions = which_questions(picture) or [
        (expression.text, expression.targets) for expression in expressions(picture, ("attribute",), sentences=True)
    ]
    return questions[int(rng.integers(len(questions)))]


FILES: dict[str, Draw] = {
    "LISA_Plus_Instance_Seg.json": instances,
    "LISA_Plus_COT.json": reasoned,
    "LISA_Plus_Conversations.json": dialogue,
    "LISA_Plus_Caption.json": caption,
}


def write_reason_seg_plus(pools: Pools) -> None:
    """Write the four files and their photographs."""
    pictures = pools.train("coco")
    save(pictures, pools.root / "refer_seg/images/mscoco/images/train2017", COCO)
    for file, draw in FILES.items():
        records = [draw(picture, pools.generator(file, picture)) for picture in Bar(pictures, desc=file, unit="scene")]
        write_compact(pools.root / "reason_seg_plus" / file, records)
