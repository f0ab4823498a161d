"""Drawn scenes: a pure function of the seed, exact masks, queries that mean exactly their targets, disjoint splits."""

import json
import re
from collections import Counter

import cv2
import numpy as np
import pytest

from dataset.drawn import queries
from dataset.drawn.layout import SIZES
from dataset.drawn.objects import COLOURS, KINDS, TEXTURES
from dataset.drawn.queries import FUNCTIONS, RELATION, SEVERAL, SUPERLATIVE, SUPERLATIVE_OF, SUPERLATIVES, plural
from dataset.drawn.writer import make_scene, write_scenes
from dataset.families.reason_seg import ReasonSeg
from dataset.masks import fill_polygon
from dataset.readers.labelme import paint_shapes
from utils.errors import DataError

SCENES = [(split, index) for split in ("train", "val", "test") for index in range(60)]


@pytest.fixture(scope="module")
def drawn():
    return {
        (*key, n): (scene, query)
        for key in SCENES
        for scene, found in [make_scene(0, *key)]
        for n, query in enumerate(found)
    }


def test_a_scene_is_a_function_of_seed_split_and_index(drawn):
    for key in SCENES[:6]:
        scene, found = make_scene(0, *key)
        for number, query in enumerate(found):
            assert np.array_equal(scene.image, drawn[(*key, number)][0].image) and query == drawn[(*key, number)][1]
    assert not np.array_equal(make_scene(1, "train", 0)[0].image, drawn["train", 0, 0][0].image)


def test_scenes_vary(drawn):
    counts = {len(scene.objects) for scene, _ in drawn.values()}
    assert counts == {2, 3, 4, 5, 6, 7, 8}
    assert {item.texture for scene, _ in drawn.values() for item in scene.objects} == set(TEXTURES)
    assert {scene.image.shape[:2] for scene, _ in drawn.values()} == set(SIZES)
    assert {query.kind for _, query in drawn.values()} == {
        "attribute",
        "function",
        "superlative",
        "relation",
        "several",
    }
    assert {query.is_sentence for _, query in drawn.values()} == {True, False}


def test_objects_are_drawn_exactly_on_their_masks(drawn, monkeypatch):
    """Where no mask is, nothing of an object is; where one is, every pixel is the object's."""
    from dataset.drawn import layout
    from utils.seeding import generator_for

    for index in range(10):
        scene = layout.draw_scene(generator_for("exact", index))
        with monkeypatch.context() as patched:
            patched.setattr(layout, "draw_object", lambda image, item, pose: None)
            bare = layout.draw_scene(generator_for("exact", index)).image
        union = np.zeros(bare.shape[:2], dtype=int)
        for item in scene.objects:
            mask = fill_polygon(item.polygon, *bare.shape[:2])
            assert int(mask.sum()) == item.area
            union += mask
        assert union.max() == 1, "masks are what is seen"
        changed = (scene.image != bare).any(axis=2)
        assert not (changed & (union == 0)).any()
        assert (changed & (union == 1)).sum() > 0.99 * union.sum()


def group_words(item):
    """What objects like this one are called in queries about a colour, a kind or a texture."""
    words = [f"{item.colour} objects", f"{item.colour} object", plural(item.kind), item.kind]
    return words if item.texture == "plain" else [*words, f"{item.texture} objects", f"{item.texture} object"]


def singular_names(item):
    """What an object may be called by its attributes."""
    names = [f"{item.colour} {item.kind}", item.kind, f"{item.colour} object"]
    textured = [f"{item.texture} object", f"{item.texture} {item.kind}", f"{item.texture} {item.colour} object"]
    return names if item.texture == "plain" else [*names, *textured]


def meant(scene, query):
    """Targets by brute force from the words of a query, for every kind of query."""
    objects, text = scene.objects, query.texts[0].lower()
    x = [o.centre[0] for o in objects]
    y = [o.centre[1] for o in objects]
    everyone = range(len(objects))
    if query.kind == "function":
        kinds = [k for k, bank in FUNCTIONS.items() if any(query.texts[0] in bank[split] for split in bank)]
        return {i for i in everyone if objects[i].kind in kinds}
    if query.kind == "superlative":
        name = next(n for n, words in SUPERLATIVES.items() if any(w in text for w in words))
        area = [o.area for o in objects]
        everyone = [
            i for i in everyone if any(re.search(rf"\b{word}\b", text) for word in group_words(objects[i]))
        ] or everyone
        key = {"large": area, "small": [-a for a in area], "left": [-v for v in x], "right": x,
               "high": [-v for v in y], "low": y}[name]  # fmt: skip
        return {max(everyone, key=lambda i: key[i])}
    if query.kind == "several":
        return {i for i in everyone if any(word in text for word in group_words(objects[i]) if word.endswith("s"))}
    named = {i for i in everyone if any(re.search(rf"the {name}\b", text) for name in singular_names(objects[i]))}
    if query.kind == "attribute":
        return named
    (anchor,) = named
    others = [i for i in everyone if i != anchor]
    if "closest" in text or "next to" in text:
        return {min(others, key=lambda i: np.hypot(x[i] - x[anchor], y[i] - y[anchor]))}
    side = next(s for s, words in {"left": ("left",), "right": ("right",), "above": ("above", "higher"),
                                   "below": ("below", "lower")}.items() if any(w in text for w in words))  # fmt: skip
    test = {"left": lambda i: x[i] < x[anchor], "right": lambda i: x[i] > x[anchor],
            "above": lambda i: y[i] < y[anchor], "below": lambda i: y[i] > y[anchor]}[side]  # fmt: skip
    return {i for i in others if test(i)}


def test_every_query_means_exactly_its_targets(drawn):
    for scene, query in drawn.values():
        assert meant(scene, query) == set(query.targets), query
        pairs = Counter((o.kind, o.colour) for o in scene.objects)
        assert max(pairs.values()) == 1


def test_splits_share_no_wording():
    banks = [queries.ATTRIBUTE, SUPERLATIVE, SUPERLATIVE_OF, SEVERAL, *FUNCTIONS.values(), *RELATION.values()]
    for bank in banks:
        train, val, test = (set(bank[split]) for split in ("train", "val", "test"))
        assert not train & val and not train & test and not val & test, bank
        assert any(text.endswith((".", "?")) for text in test) and any(not text.endswith((".", "?")) for text in test)


def test_words_of_unseen_wordings_are_known(drawn):
    words = {split: Counter() for split in ("train", "val", "test")}
    for index in range(400):
        for query in make_scene(0, "train", index)[1]:
            words["train"].update(re.findall(r"[a-z]+", " ".join(query.texts).lower()))
    for (split, _, _), (_, query) in drawn.items():
        words[split].update(re.findall(r"[a-z]+", " ".join(query.texts).lower()))
    unseen = words["val"] + words["test"]
    known = sum(count for word, count in unseen.items() if word in words["train"])
    assert known >= 0.95 * sum(unseen.values())
    assert {*COLOURS, *KINDS} <= set(words["train"])


def test_written_scenes_are_read_by_the_reason_seg_reader(tmp_path):
    counts = {"train": 5, "val": 2, "test": 3}
    assert write_scenes(tmp_path, counts=counts, seed=3)
    assert not write_scenes(tmp_path, counts=counts, seed=3)
    folder = tmp_path / "reason_seg" / "ReasonSeg"
    for split, count in counts.items():
        source = ReasonSeg(tmp_path, split)
        written = [
            (scene, query)
            for index in range(count)
            for scene, found in [make_scene(3, split, index)]
            for query in found
        ]
        assert len(source) == len(written) >= count
        for index, (scene, query) in enumerate(written):
            sample = source.evaluation_sample(index, protocol="forced")
            assert sample.query == query.texts[0]
            masks = [fill_polygon(scene.objects[i].polygon, *scene.image.shape[:2]) for i in query.targets]
            assert np.array_equal(sample.masks[0], np.any(masks, axis=0))
            assert np.abs(sample.image.astype(int) - scene.image).mean() < 4
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    manifest = json.loads((folder / "scenes.json").read_text())
    (folder / "scenes.json").write_text(json.dumps({**manifest, "complete": False}))
    (folder / "train" / "train_00001.jpg").unlink()
    assert write_scenes(tmp_path, counts=counts, seed=3)
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    with pytest.raises(DataError, match="holds other scenes"):
        write_scenes(tmp_path, counts=counts, seed=4)
    cv2.imwrite(str(tmp_path / "other.jpg"), np.zeros((4, 4, 3), np.uint8))
    foreign = tmp_path / "foreign" / "reason_seg" / "ReasonSeg"
    foreign.mkdir(parents=True)
    (foreign / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not drawn scenes"):
        write_scenes(tmp_path / "foreign", counts=counts, seed=3)
    annotation = json.loads((folder / "test" / "test_00000.json").read_text())
    height, width = cv2.imread(str(folder / "test" / "test_00000.jpg")).shape[:2]
    assert paint_shapes(annotation["shapes"], height, width, path="x").max() == 1
