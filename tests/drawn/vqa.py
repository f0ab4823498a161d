"""Conversations about drawn pictures in the layout of LLaVA-Instruct."""

from __future__ import annotations

from typing import Any

import numpy as np

from dataset.drawn.queries import plural
from dataset.drawn.writer import explanation
from tests.drawn.coco import write_compact
from tests.drawn.phrases import absent, expressions, name, pick
from tests.drawn.pictures import COCO, Picture, Pools, save
from utils.progress import Bar

NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}

ASKED = ("What", "Which")
"""Questions that the name of an object answers begin so."""

MARKS = ("<image>\n{}", "{}\n<image>")
"""Places of the image in the first question."""


def which_questions(picture: Picture) -> list[tuple[str, tuple[int, ...]]]:
    """Questions that one object answers, and the object; none names it."""
    found = expressions(picture, ("function", "superlative", "relation"), sentences=True)
    return [
        (expression.text, expression.targets)
        for expression in found
        if expression.text.endswith("?") and expression.text.split(". ")[-1].startswith(ASKED)
    ]


def turns(picture: Picture, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Questions and answers: how many, what colour, is there, which."""
    objects = picture.objects
    item = objects[int(rng.integers(len(objects)))]
    alike = [other for other in objects if other.kind == item.kind]
    number = f"There are {NUMBERS[len(objects)]} objects."
    asked = [("How many objects are in the picture?", number)]
    if len(alike) == 1:
        asked.append((f"What colour is the {item.kind}?", f"The {item.kind} is {item.colour}."))
    else:
        asked.append((f"How many {plural(item.kind)} do you see?", f"I see {NUMBERS[len(alike)]} {plural(item.kind)}."))
    if rng.random() < 0.5:
        asked.append((f"Is there a {name(item)} in the picture?", f"Yes, there is a {name(item)}."))
    else:
        other = pick(rng, absent(picture))
        asked.append((f"Is there a {other} in the picture?", f"No, there is no {other}."))
    questions = which_questions(picture)
    if questions:
        question, targets = questions[int(rng.integers(len(questions)))]
        asked.append((question, explanation(objects, targets)))
    return [asked[index] for index in rng.permutation(len(asked))]


def _record(picture: Picture, rng: np.random.Generator) -> dict[str, Any]:
    conversation: list[dict[str, str]] = []
    for question, answer in turns(picture, rng):
        asked = question if conversation else pick(rng, MARKS).format(question)
        conversation += [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
    image = COCO.format(picture.id)
    return {"id": image.removesuffix(".jpg"), "image": image, "conversations": conversation}


def write_vqa(pools: Pools) -> None:
    """Write `llava_instruct_150k.json` and its photographs."""
    pictures = pools.train("coco")
    save(pictures, pools.root / "coco/train2017", COCO)
    records = [_record(picture, pools.generator("vqa", picture)) for picture in Bar(pictures, desc="vqa", unit="scene")]
    write_compact(pools.root / "llava_dataset/llava_instruct_150k.json", records)
