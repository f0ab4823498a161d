"""References to drawn objects in the layouts of RefCOCO, RefCOCO+, RefCOCOg, RefCLEF, gRefCOCO and Ref-ZOM."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.wording import listed, sampled
from tests.drawn.coco import CATEGORIES, Form, instances, object_id, objects, write_compact
from tests.drawn.phrases import about, absent, attribute_wordings, expressions, names, pick, pick_several
from tests.drawn.pictures import TRAIN2014, Picture, Pools, save
from utils.progress import Bar

MOST_SENTENCES = 3

SAIAPR = "00/images/{}.jpg"

Sentence = dict[str, Any]
"""A sentence's own fields: `sent`, and where premises can be false whether this one is."""


@dataclass(frozen=True)
class Reference:
    """Objects of a picture, by index, and sentences that mean them; nothing means that there is no such object."""

    picture: Picture
    targets: tuple[int, ...]
    sentences: tuple[Sentence, ...]


Refer = Callable[[Picture, np.random.Generator], list[Reference]]
Fields = Callable[[Reference], dict[str, Any]]


@dataclass(frozen=True)
class ReferLayout:
    """What one set is made of.

    Attributes:
        folder: of the set, below `refer_seg/`.
        references: name of the file of references, a pickle or JSON.
        refer: makes the references of a picture.
        fields: what a reference says about its objects.
        merged: testA and testB are one split, `test`.
        pool: pictures.
        image: name of a picture's file, with its id.
        forms: forms of segmentation, in turn.
    """

    folder: str
    references: str
    refer: Refer
    fields: Fields
    merged: bool = False
    pool: str = "coco"
    image: str = TRAIN2014
    forms: tuple[Form, ...] = ("polygons",)


def each_object(*kinds: str) -> Refer:
    """References to every object by itself, by some kinds of query."""

    def refer(picture: Picture, rng: np.random.Generator) -> list[Reference]:
        found = expressions(picture, kinds)
        return [
            Reference(picture, (index,), said(pick_several(rng, about(found, (index,)), MOST_SENTENCES)))
            for index in range(len(picture.objects))
        ]

    return refer


def said(texts: Iterable[str]) -> tuple[Sentence, ...]:
    """Sentences of some texts."""
    return tuple({"sent": text} for text in texts)


def any_number(picture: Picture, rng: np.random.Generator) -> list[Reference]:
    """References to one object, to several and to none."""
    references = each_object(*KINDS["refcoco"])(picture, rng)[:2]
    found = expressions(picture, ("several",))
    for targets in dict.fromkeys(expression.targets for expression in found):
        references.append(Reference(picture, targets, said(pick_several(rng, about(found, targets), MOST_SENTENCES))))
    pair = tuple(sorted(sampled(len(picture.objects), 2, rng)))
    wordings = attribute_wordings(picture)
    references.append(Reference(picture, pair, said([pick(rng, wordings).format(a=listed(names(picture, pair)))])))
    for other in pick_several(rng, absent(picture), 2):
        references.append(Reference(picture, (), said([pick(rng, wordings).format(a=f"the {other}")])))
    return references


def one(reference: Reference) -> dict[str, Any]:
    """Fields of a reference to one object."""
    (index,) = reference.targets
    picture = reference.picture
    return {"ann_id": object_id(picture, index), "category_id": CATEGORIES[picture.objects[index].kind]}


def grefcoco(reference: Reference) -> dict[str, Any]:
    """Fields of a gRefCOCO reference: lists, `[-1]` for nothing."""
    lists = _lists(reference)
    return {key: numbers or [-1] for key, numbers in lists.items()} | {"no_target": not reference.targets}


def ref_zom(reference: Reference) -> dict[str, Any]:
    """Fields of a Ref-ZOM reference: lists, `[]` for nothing."""
    return _lists(reference) | {"source": ("zero", "one", "many")[min(2, len(reference.targets))]}


def _lists(reference: Reference) -> dict[str, list[int]]:
    picture, targets = reference.picture, reference.targets
    return {
        "ann_id": [object_id(picture, index) for index in targets],
        "category_id": [CATEGORIES[picture.objects[index].kind] for index in targets],
    }


KINDS: Mapping[str, tuple[str, ...]] = {
    "refcoco": ("attribute", "relation", "superlative"),
    "refcoco+": ("attribute", "function"),
    "refcocog": ("attribute", "relation", "superlative", "function"),
}
"""Kinds of query of the three sets; RefCOCO+ says nothing about places."""

LAYOUTS = (
    ReferLayout("refcoco", "refs(unc).p", each_object(*KINDS["refcoco"]), one),
    ReferLayout("refcoco+", "refs(unc).p", each_object(*KINDS["refcoco+"]), one),
    ReferLayout("refcocog", "refs(umd).p", each_object(*KINDS["refcocog"]), one, merged=True),
    ReferLayout(
        "refclef", "refs(unc).p", each_object(*KINDS["refcoco"]), one, pool="saiapr", image=SAIAPR, forms=("list",)
    ),
    ReferLayout("grefcoco", "grefs(unc).json", any_number, grefcoco, forms=("polygons", "runs")),
    ReferLayout("refzom", "Ref_ZOM.p", any_number, ref_zom, merged=True, forms=("runs", "polygons")),
)


def write_refer_seg(pools: Pools) -> None:
    """Write the six sets and their photographs."""
    folder = pools.root / "refer_seg"
    save(pools.pictures("saiapr"), folder / "images/saiapr_tc-12", SAIAPR)
    save(pools.pictures("coco"), folder / "refzom/trainval2014", TRAIN2014)
    write_sets(pools, LAYOUTS)


def write_sets(pools: Pools, layouts: Iterable[ReferLayout]) -> None:
    """Write references and instances of some sets, and COCO's photographs."""
    folder = pools.root / "refer_seg"
    save(pools.pictures("coco"), folder / "images/mscoco/images/train2014", TRAIN2014)
    made: dict[tuple[str, tuple[Form, ...]], dict[str, Any]] = {}
    for layout in layouts:
        pictures = pools.pictures(layout.pool)
        key = layout.pool, layout.forms
        if key not in made:
            annotations = [record for picture in pictures for record in objects(picture, layout.forms)]
            made[key] = instances(pictures, layout.image, annotations)
        write_compact(folder / layout.folder / "instances.json", made[key])
        references = [
            reference
            for picture in Bar(pictures, desc=layout.folder, unit="scene")
            for reference in layout.refer(picture, pools.generator(layout.folder, picture))
        ]
        _write_references(folder / layout.folder / layout.references, _records(references, layout))


def _records(references: Iterable[Reference], layout: ReferLayout) -> list[dict[str, Any]]:
    """References as they stand in the file; references and sentences are numbered through."""
    records: list[dict[str, Any]] = []
    sentences = 0
    for number, reference in enumerate(references):
        picture = reference.picture
        numbers = range(sentences, sentences + len(reference.sentences))
        sentences = numbers.stop
        records.append(
            {
                "ref_id": number,
                "image_id": picture.id,
                "file_name": layout.image.format(picture.id),
                "split": picture.wording if layout.merged else picture.split,
                "sent_ids": list(numbers),
                "sentences": [
                    _numbered(sentence, place) for place, sentence in zip(numbers, reference.sentences, strict=True)
                ],
                **layout.fields(reference),
            }
        )
    return records


def _numbered(sentence: Mapping[str, Any], number: int) -> dict[str, Any]:
    text = sentence["sent"]
    return {**sentence, "raw": text, "tokens": text.split(), "sent_id": number}


def _write_references(path: Path, records: list[dict[str, Any]]) -> None:
    if path.suffix == ".json":
        write_compact(path, records)
    else:
        path.write_bytes(pickle.dumps(records, protocol=2))
