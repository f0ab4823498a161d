"""References of which some name what a picture does not show, in the layouts of R-RefCOCO and FP-RefCOCO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tests.drawn.coco import write_compact
from tests.drawn.phrases import about, attribute_wordings, expressions, mistaken, name, pick, pick_several
from tests.drawn.pictures import Picture, Pools, save
from tests.drawn.refer_seg import (
    KINDS,
    LAYOUTS,
    SAIAPR,
    Refer,
    Reference,
    ReferLayout,
    Sentence,
    one,
    write_sets,
)

MOST_TRUE = 2

Flagged = Callable[[str, str | None], Sentence]
"""(text, the text that would fit if this one does not) to the sentence's fields."""


def exists(text: str, fitting: str | None) -> Sentence:
    """A sentence of R-RefCOCO."""
    return {"sent": text, "exist": fitting is None}


def false_premise(text: str, fitting: str | None) -> Sentence:
    """A sentence of FP-RefCOCO."""
    if fitting is None:
        return {"sent": text, "is_false_premise": False}
    return {"sent": text, "is_false_premise": True, "gt_sent": fitting}


def some_false(flagged: Flagged, *kinds: str) -> Refer:
    """References to every object: true sentences by some kinds of query, and one that is wrong in colour or kind."""

    def refer(picture: Picture, rng: np.random.Generator) -> list[Reference]:
        found = expressions(picture, kinds)
        return [
            Reference(picture, (index,), (*true_sentences, _false(picture, index, flagged, rng)))
            for index in range(len(picture.objects))
            for true_sentences in [_true(about(found, (index,)), flagged, rng)]
        ]

    return refer


def _true(texts: list[str], flagged: Flagged, rng: np.random.Generator) -> list[Sentence]:
    return [flagged(text, None) for text in pick_several(rng, texts, MOST_TRUE)]


def _false(picture: Picture, index: int, flagged: Flagged, rng: np.random.Generator) -> Sentence:
    wording = pick(rng, attribute_wordings(picture))
    wrong, right = pick(rng, mistaken(picture, index)), name(picture.objects[index])
    return flagged(wording.format(a=f"the {wrong}"), wording.format(a=f"the {right}"))


def _layouts(prefix: str, flagged: Flagged, split_by: str, split_by_g: str) -> tuple[ReferLayout, ...]:
    return tuple(
        ReferLayout(
            f"{prefix}{base}",
            f"refs({split_by_g if base == 'refcocog' else split_by}).p",
            some_false(flagged, *kinds),
            one,
            merged=base == "refcocog",
        )
        for base, kinds in KINDS.items()
    )


def write_fp_refer_seg(pools: Pools) -> None:
    """Write the false-premise references of RefCLEF and RefCOCO, +, g beside their own."""
    split_by = {"refcocog": "umd_exclude_unified"}
    layouts = [
        replace(
            layout,
            references=f"refs({split_by.get(layout.folder, 'unc_exclude_unified')}).p",
            refer=some_false(exists, *KINDS.get(layout.folder, KINDS["refcoco"])),
        )
        for layout in LAYOUTS
        if layout.folder in ("refclef", *KINDS)
    ]
    save(pools.pictures("saiapr"), pools.root / "refer_seg/images/saiapr_tc-12", SAIAPR)
    write_sets(pools, layouts)


def write_fp_reason_seg(pools: Pools) -> None:
    """Write ReasonSeg's layout with false premises: a query about one object, and one about what is not there."""
    for picture in pools.pictures("coco"):
        rng = pools.generator("fp_reason_seg", picture)
        wording, target = pick(rng, attribute_wordings(picture)), int(rng.integers(len(picture.objects)))
        wrong = pick(rng, mistaken(picture, target))
        content = {
            "text": [wording.format(a=f"the {name(picture.objects[target])}")],
            "is_sentence": False,
            "shapes": [{"label": "target", "points": picture.objects[target].polygon.tolist()}],
            "false_premise_QA": [[wording.format(a=f"the {wrong}"), False, f"There is no {wrong} in the image."]],
        }
        folder = pools.root / "reason_seg" / "fpReasonSeg" / picture.wording
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{picture.id:06d}.jpg").write_bytes(picture.jpeg)
        write_compact(folder / f"{picture.id:06d}.json", content)


def write_neg_refer_seg(pools: Pools) -> None:
    """Write R-RefCOCO, R-RefCOCO+ and R-RefCOCOg."""
    write_sets(pools, _layouts("R-", exists, "unc_exclude_unified", "umd_exclude_unified"))


def write_correct_refer_seg(pools: Pools) -> None:
    """Write FP-RefCOCO, FP-RefCOCO+ and FP-RefCOCOg."""
    write_sets(pools, _layouts("fp", false_premise, "berkeley_exclude_unified", "berkeley_exclude_unified"))
