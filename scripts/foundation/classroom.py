"""Drawn scenes as arrays for tiny-llava: views, what each patch shows, and lessons as token ids.

Letters: N scenes, P patches, O objects of a scene at most, M lessons of a scene, L ids of a lesson.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import sentencepiece
import torch
from torch import Tensor

from dataset.drawn.layout import MOST, SIZES, Scene, draw_scene
from dataset.drawn.objects import COLOURS, KINDS, TEXTURES, SceneObject
from dataset.masks import fill_polygon
from scripts.foundation.lessons import Lesson, lessons, referring
from utils.geometry import PaddedView, resize_longest_side
from utils.progress import Bar
from utils.seeding import generator_for

LESSONS, LENGTH = 28, 40
"""M and L."""
IGNORED = -100
SHARES = {"attribute": 3, "function": 4, "superlative": 5, "relation": 6, "several": 2, "count": 2, "place": 2}
"""Lessons of a kind that a scene keeps at most; of every other kind one."""
NOTHING = 255
"""Object of a patch that shows none."""
SEEN = 0.1
"""Share of a patch that an object covers to be what the patch shows."""
FACTS = ("kind", "colour", "texture", "from_left", "from_top", "by_size", "near_kind", "near_colour")
"""What is asked of each patch about the object that it shows: classes by name."""
CLASSES = (len(KINDS), len(COLOURS), len(TEXTURES), MOST, MOST, MOST, len(KINDS), len(COLOURS))
"""How many there are of each."""
EXTREMES = 12
"""Flags of an object: largest, smallest, leftmost, rightmost, highest, lowest of its colour, then of its kind."""


@dataclass(frozen=True)
class Classroom:
    """N scenes.

    Attributes:
        views: (N, S, S, 3) uint8, of which the content is the part of `sizes`.
        sizes: (N,) number of the scene's size in `SIZES`.
        shown: (N, P) object that each patch shows, or `NOTHING`.
        coverage: (N, O, P) share of each patch that an object covers, in 1/255.
        facts: (N, O, len(FACTS)) classes.
        flags: (N, O, EXTREMES) 0 or 1.
        ids: (N, M, L) token ids of a lesson, 0 behind its end.
        labels: (N, M, L) ids of the answers, `IGNORED` elsewhere.
        targets: (N, M, O) 1 for each object that the first answer names.
        starts: (N, M) index of the last id before the first answer.
        kinds: (N, M) number of the lesson's kind in `LESSON_KINDS`.
    """

    views: Tensor
    sizes: Tensor
    shown: Tensor
    coverage: Tensor
    facts: Tensor
    flags: Tensor
    ids: Tensor
    labels: Tensor
    targets: Tensor
    starts: Tensor
    kinds: Tensor

    def __len__(self) -> int:
        return len(self.views)

    def to(self, device: torch.device) -> Classroom:
        """Move every tensor."""
        return Classroom(*(getattr(self, field.name).to(device) for field in fields(self)))


LESSON_KINDS = ("attribute", "function", "superlative", "relation", "several", "count", "colour", "texture", "use",
                "dialogue", "exists", "compare", "place", "caption")  # fmt: skip


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values))


def object_facts(objects: Sequence[SceneObject]) -> tuple[np.ndarray, np.ndarray]:
    """Classes (O, len(FACTS)) and flags (O, EXTREMES) of a scene's objects."""
    kinds = np.array([list(KINDS).index(o.kind) for o in objects])
    colours = np.array([list(COLOURS).index(o.colour) for o in objects])
    textures = np.array([TEXTURES.index(o.texture) for o in objects])
    x, y = np.array([o.centre for o in objects]).T
    area = np.array([float(o.area) for o in objects])
    distance = np.hypot(x[:, None] - x, y[:, None] - y) + np.diag(np.full(len(objects), np.inf))
    near = distance.argmin(axis=1)
    facts = np.stack([kinds, colours, textures, _ranks(x), _ranks(y), _ranks(area), kinds[near], colours[near]], axis=1)
    values = np.stack([area, -area, -x, x, -y, y], axis=1)
    flags = [
        [values[i, v] >= values[group == group[i], v].max() for group in (colours, kinds) for v in range(6)]
        for i in range(len(objects))
    ]
    return facts.astype(np.int64), np.array(flags, dtype=np.uint8)


def patch_coverage(masks: np.ndarray, view: PaddedView) -> np.ndarray:
    """Share of each patch that objects (O, H, W) cover: (O, P) in [0, 1]."""
    stacked = np.repeat((masks * 255).astype(np.uint8)[..., None], 3, axis=-1)
    patch = view.side // view.grid
    found = np.zeros((len(masks), view.side, view.side), np.float32)
    for number, mask in enumerate(stacked):
        small = resize_longest_side(mask, view.side)[..., 0]
        found[number, : small.shape[0], : small.shape[1]] = small / 255
    cells = found.reshape(len(masks), view.grid, patch, view.grid, patch)
    return cells.mean(axis=(2, 4)).reshape(len(masks), -1)


def chosen_lessons(rng: np.random.Generator, found: Sequence[Lesson]) -> list[Lesson]:
    """Some lessons of a scene, of each kind as many as `SHARES` says, in random order; at most M."""
    shuffled = [found[index] for index in rng.permutation(len(found))]
    left = {kind: SHARES.get(kind, 1) for kind in LESSON_KINDS}
    kept = []
    for lesson in shuffled:
        if left[lesson.kind]:
            left[lesson.kind] -= 1
            kept.append(lesson)
    return kept[:LESSONS]


def encode_lesson(lesson: Lesson, tokenizer: sentencepiece.SentencePieceProcessor) -> tuple[list[int], list[int], int]:
    """Ids, labels and the index before the first answer, in the prompt's form `question ASSISTANT: answer</s>`."""
    ids: list[int] = []
    labels: list[int] = []
    start = 0
    for number, (question, answer) in enumerate(lesson.turns):
        ids += tokenizer.encode(f"{'USER: ' if number else ''}{question} ASSISTANT:")
        labels += [IGNORED] * (len(ids) - len(labels))
        start = start or len(ids) - 1
        ids += [*tokenizer.encode(answer), tokenizer.eos_id()]
        labels += ids[len(labels) :]
    return ids, labels, start


def _scene_arrays(scene: Scene, taught: Sequence[Lesson], tokenizer: sentencepiece.SentencePieceProcessor,
                  view: PaddedView) -> tuple[np.ndarray, ...]:  # fmt: skip
    masks = np.stack([fill_polygon(item.polygon, *scene.image.shape[:2]) for item in scene.objects])
    count, small = len(scene.objects), resize_longest_side(scene.image, view.side)
    picture = np.zeros((view.side, view.side, 3), np.uint8)
    picture[: small.shape[0], : small.shape[1]] = small
    covered = patch_coverage(masks, view)
    coverage = np.zeros((MOST, covered.shape[1]), np.uint8)
    coverage[:count] = np.round(covered * 255)
    shown = np.where(covered.max(axis=0) >= SEEN, covered.argmax(axis=0), NOTHING).astype(np.uint8)
    facts, flags = np.zeros((MOST, len(FACTS)), np.int64), np.zeros((MOST, EXTREMES), np.uint8)
    facts[:count], flags[:count] = object_facts(scene.objects)
    ids, labels = np.zeros((LESSONS, LENGTH), np.int16), np.full((LESSONS, LENGTH), IGNORED, np.int16)
    targets, starts = np.zeros((LESSONS, MOST), np.uint8), np.zeros(LESSONS, np.int64)
    kinds = np.zeros(LESSONS, np.int64)
    encoded = [(lesson, *encode_lesson(lesson, tokenizer)) for lesson in taught]
    fitting = [item for item in encoded if len(item[1]) <= LENGTH]
    for row in range(LESSONS):
        lesson, own, answers, start = fitting[row % len(fitting)]  # a scene with few lessons repeats them
        ids[row, : len(own)], labels[row, : len(own)] = own, answers
        targets[row, list(lesson.targets)] = 1
        starts[row], kinds[row] = start, LESSON_KINDS.index(lesson.kind)
    size = np.int64(SIZES.index(scene.image.shape[:2]))
    return picture, np.asarray(size), shown, coverage, facts, flags, ids, labels, targets, starts, kinds


def _one(index: int, *, seed: int, split: str, tokenizer: bytes, view: PaddedView) -> tuple[np.ndarray, ...]:
    rng = generator_for(seed, "foundation", split, index)
    scene = draw_scene(rng)
    size = scene.image.shape[:2]
    found = lessons(rng, scene.objects, size)
    if split != "train":
        unseen = [lesson for lesson in found if lesson.kind not in ("attribute", "function", "superlative", "relation",
                                                                    "several")]  # fmt: skip
        found = [*referring(rng, scene.objects, max(size), split), *unseen]
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer)
    return _scene_arrays(scene, chosen_lessons(rng, found), processor, view)


def draw_classroom(count: int, *, seed: int, split: str, tokenizer: bytes, view: PaddedView, workers: int) -> Classroom:
    """Draw `count` scenes of a split in parallel processes; each is a function of seed, split and its number."""
    draw = partial(_one, seed=seed, split=split, tokenizer=tokenizer, view=view)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        scenes = pool.imap(draw, range(count), chunksize=64)
        columns = zip(*Bar(scenes, total=count, desc=f"{split} scenes", unit="scene"), strict=True)
        return Classroom(*(torch.from_numpy(np.stack(column)) for column in columns))
