"""Questions with several targets about drawn pictures in the layout of MUSE."""

from __future__ import annotations

from typing import Any

import numpy as np

from dataset.wording import listed, sampled
from tests.drawn.coco import Form, objects, write_compact
from tests.drawn.phrases import about, expressions, name, pick
from tests.drawn.pictures import COCO, TRAIN2014, Picture, Pools, save
from utils.progress import Bar

FORMS: tuple[Form, ...] = ("polygons", "compressed", "runs")

QUESTIONS = 3
"""Questions about a picture."""

FILES: dict[str, tuple[str, tuple[int, int]]] = {
    "train": ("MUSE_train.json", (1, 4)),
    "val": ("MUSE_val.json", (1, 4)),
    "testA": ("MUSE_test_less.json", (1, 2)),
    "testB": ("MUSE_test_many.json", (3, 5)),
}
"""For each split its file, and the fewest and most targets of a question."""

SPOKEN = ("It is {}.", "You mean {}.", "Look at {}.")
"""Answers in words."""

URL = f"http://images.cocodataset.org/{{}}/{COCO}"


def ask(picture: Picture, targets: list[int], rng: np.random.Generator) -> str:
    """A sentence for each target, by its use if it alone has it, else by its name."""
    sentences = []
    for index in targets:
        by_use = about(expressions(picture, ("function",), sentences=True), (index,))
        by_name = about(expressions(picture, ("attribute",), sentences=True), (index,))
        sentences.append(pick(rng, by_use or by_name))
    return " ".join(sentences)


def record(picture: Picture, rng: np.random.Generator) -> dict[str, Any]:
    """Some questions about a picture, each with its targets; two of three answers in words."""
    _, (fewest, most) = FILES[picture.split]
    known = [
        {"category_name": item.kind, "rephrased_name": name(item)} | found
        for item, found in zip(picture.objects, _annotations(picture), strict=True)
    ]
    questions, answers, spoken = [], [], []
    for number in range(QUESTIONS):
        count = min(fewest + int(rng.integers(most - fewest + 1)), len(known))
        targets = sampled(len(known), count, rng)
        questions.append(ask(picture, targets, rng))
        answers.append([known[index] for index in targets])
        places = listed([f"the {name(picture.objects[index])} {{seg}}" for index in targets])
        spoken.append(None if (picture.id + number) % 3 == 0 else pick(rng, SPOKEN).format(places))
    return _photograph(picture) | {
        "height": picture.size[0],
        "width": picture.size[1],
        "ann_list": known,
        "questions": questions,
        "answers": answers,
        "text_answers": spoken,
    }


def _annotations(picture: Picture) -> list[dict[str, Any]]:
    kept = ("category_id", "bbox", "segmentation")
    return [{key: annotation[key] for key in kept} for annotation in objects(picture, FORMS)]


def _photograph(picture: Picture) -> dict[str, str]:
    """Where the photograph is: train pictures are half in train2014 and half in train2017, the others in val2017."""
    if picture.split != "train":
        return {"coco_url": URL.format("val2017", picture.id)}
    if picture.id % 2:
        return {"file_name": TRAIN2014.format(picture.id)}
    return {"coco_url": URL.format("train2017", picture.id)}


def write_multi_reason_seg(pools: Pools) -> None:
    """Write the four files and their photographs."""
    folder = pools.root / "refer_seg/images/mscoco/images"
    pictures = pools.pictures("coco")
    train = pools.train("coco")
    save([picture for picture in train if picture.id % 2], folder / "train2014", TRAIN2014)
    save([picture for picture in train if not picture.id % 2], folder / "train2017", COCO)
    save([picture for picture in pictures if picture.split != "train"], folder / "val2017", COCO)
    for split, (file, _) in FILES.items():
        chosen = [picture for picture in pictures if picture.split == split]
        records = [
            record(picture, pools.generator("muse", picture)) for picture in Bar(chosen, desc=file, unit="scene")
        ]
        write_compact(pools.root / "multi_reason_seg/MultiReasonSeg" / file, records)
