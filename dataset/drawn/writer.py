"""Writer of the drawn scenes: ReasonSeg's folders, image and annotation files, reproducible from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from dataset.drawn.layout import Scene, draw_scene
from dataset.drawn.manifest import begin, finish
from dataset.drawn.objects import SceneObject
from dataset.drawn.queries import Query, draw_query
from utils.files import write_json
from utils.progress import Bar
from utils.seeding import generator_for

FOLDER = Path("reason_seg") / "ReasonSeg"
MANIFEST = "scenes.json"
VERSION = 1
SPLITS = ("train", "val", "test")


QUERIES = {"train": 4, "val": 1, "test": 1}
"""Most queries of one scene, about different targets."""


def make_scene(seed: int, split: str, index: int) -> tuple[Scene, tuple[Query, ...]]:
    """Scene `index` of a split and its queries: a pure function of the three."""
    rng = generator_for(seed, split, index)
    while True:
        scene = draw_scene(rng)
        found: dict[tuple[int, ...], Query] = {}
        for _ in range(2 * QUERIES[split]):
            query = draw_query(rng, scene.objects, max(scene.image.shape[:2]), split)
            if query.texts and len(found) < QUERIES[split]:
                found.setdefault(tuple(sorted(query.targets)), query)
        if found:
            return scene, tuple(found.values())


def explanation(objects: Sequence[SceneObject], targets: Sequence[int]) -> str:
    """A sentence that names the targets by colour and kind."""
    names = [f"the {objects[index].colour} {objects[index].kind}" for index in targets]
    if len(names) == 1:
        return f"It is {names[0]}."
    return f"They are {', '.join(names[:-1])} and {names[-1]}."


def jpeg(image: np.ndarray) -> bytes:
    """An (H, W, 3) uint8 RGB image as the bytes of a JPEG file."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    return bytes(encoded.tobytes())


def annotation(scene: Scene, query: Query, image_name: str) -> dict[str, object]:
    """The scene's annotation in ReasonSeg's form; `query_kind` is extra."""
    shapes = [
        {
            "label": "target",
            "labels": ["target"],
            "shape_type": "polygon",
            "image_name": image_name,
            "points": scene.objects[index].polygon.tolist(),
            "group_id": None,
            "group_ids": [None],
            "flags": {},
        }
        for index in query.targets
    ]
    return {
        "text": list(query.texts),
        "is_sentence": query.is_sentence,
        "shapes": shapes,
        "query_kind": query.kind,
    }


def _write_split(folder: Path, split: str, count: int, seed: int) -> list[dict[str, str]]:
    """Write the scenes that are not there yet; return their explanations."""
    folder.mkdir(parents=True, exist_ok=True)
    explanations = []
    for index in Bar(range(count), desc=f"{split} scenes", unit="scene"):
        name = f"{split}_{index:05d}"
        scene, queries = make_scene(seed, split, index)
        (folder / f"{name}.jpg").write_bytes(jpeg(scene.image))
        for number, query in enumerate(queries, start=1):
            file = f"{name}.json" if number == 1 else f"{name}.{number}.json"
            write_json(folder / file, annotation(scene, query, f"{name}.jpg"))
            explanations.append(
                {
                    "query": query.texts[0],
                    "outputs": explanation(scene.objects, query.targets),
                    "image": f"{name}.jpg",
                    "json": file,
                }
            )
    return explanations


def write_scenes(root: str | Path, *, counts: dict[str, int], seed: int) -> bool:
    """Write a dataset of drawn scenes in ReasonSeg's layout.

    Args:
        root: the folder that will hold `reason_seg/`.
        counts: scenes of each split.
        seed: of all scenes.

    Returns:
        False if the same scenes were there already.

    Raises:
        DataError: if the folder holds other files; nothing is overwritten.
    """
    folder = Path(root) / FOLDER
    manifest = {"version": VERSION, "seed": seed, "counts": counts}
    if not begin(folder / MANIFEST, manifest, [folder]):
        return False
    explanations = {split: _write_split(folder / split, split, counts[split], seed) for split in SPLITS}
    (folder / "explanatory").mkdir(exist_ok=True)
    write_json(folder / "explanatory" / "train.json", explanations["train"])
    finish(folder / MANIFEST, manifest)
    return True
