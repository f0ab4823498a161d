"""Drawn datasets: every file is read, every mask is the drawn pixels, every phrase is true of its picture."""

import hashlib
import itertools
import json
import pickle
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pycocotools import coco as pycoco

from dataset.drawn.layout import SIZES
from dataset.drawn.objects import COLOURS, KINDS
from dataset.drawn.queries import FUNCTIONS, SUPERLATIVES, plural
from dataset.drawn.writer import write_scenes
from dataset.families import false_premise, refer_seg
from dataset.families.label_maps import LabelMaps, ade20k_names, cocostuff_names
from dataset.families.lisa_markup import Mark, dialogue, parse, plain
from dataset.families.lisa_plus import LisaPlus, polygons
from dataset.families.muse import Muse, MuseBenchmark
from dataset.families.parts import Parts
from dataset.families.vqa import Vqa
from dataset.images import read_image, read_label_map
from dataset.masks import decode_segmentation, fill_polygon
from dataset.readers.folder import DataFolder
from scripts import make_scenes
from tests.dataset.test_drawn import meant
from tests.drawn.coco import CATEGORIES, rings, segmentation
from tests.drawn.layouts import FAMILIES, write_layouts
from tests.drawn.lisa_plus import MARKUPS
from tests.drawn.pictures import Pools
from tests.drawn.sem_seg import ADE20K, COCO_STUFF, MAPILLARY, MAPILLARY_LABELS
from utils.errors import DataError, SettingsError
from utils.seeding import generator_for

IMAGES, SEED = 14, 3
SINGLE = ("refcoco", "refcoco+", "refcocog", "refclef")
SPLITS = ("train", "val", "testA", "testB")
MERGED = ("train", "val", "test")
FALSE = {name: known.references[0] for name, known in false_premise.SETS.items()}
REFERENCES = {name: known.references[-1] for name, known in refer_seg.SETS.items()} | FALSE
MUSE_FILES = {"train": "train", "val": "val", "testA": "test_less", "testB": "test_many"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    write_layouts(folder, families=tuple(FAMILIES), images=IMAGES, seed=SEED)
    return folder


@pytest.fixture(scope="module")
def data(root, tmp_path_factory):
    return DataFolder(root, tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def pools(root):
    return Pools(root, images=IMAGES, seed=SEED)


def load(path):
    return json.loads(path.read_text()) if path.suffix == ".json" else pickle.loads(path.read_bytes())


def by_id(pools, pool="coco"):
    return {picture.id: picture for picture in pools.pictures(pool)}


def truth(picture, targets):
    """(H, W) boolean union of some objects, from their drawn polygons."""
    union = np.zeros(picture.size, dtype=bool)
    for index in targets:
        union |= fill_polygon(picture.objects[index].polygon, *picture.size)
    return union


def understood(picture, text):
    """Objects that a phrase or sentence means, by brute force from its words."""
    words = re.findall(r"[a-z]+", text.lower())
    by_use = [sentence for bank in FUNCTIONS.values() for texts in bank.values() for sentence in texts]
    if text in by_use:
        kind = "function"
    elif any(word in words for bank in SUPERLATIVES.values() for word in bank):
        kind = "superlative"
    elif re.search(r"closest to|next to|left of|right of|side of|above|below|(higher|lower) than", text):
        kind = "relation"
    elif {"objects", *map(plural, KINDS)} & set(words):
        kind = "several"
    else:
        kind = "attribute"
    return meant(SimpleNamespace(objects=picture.objects), SimpleNamespace(kind=kind, texts=[text]))


def shows(picture, colour, kind):
    return any((item.colour, item.kind) == (colour, kind) for item in picture.objects)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def awkward_masks():
    rng = np.random.default_rng(0)
    yield from (rng.random((rng.integers(1, 9), rng.integers(1, 9))) < chance for chance in np.linspace(0.05, 1, 400))
    ring = np.ones((7, 7), dtype=bool)
    ring[2:5, 2:5] = False
    ring[3, 3] = True
    yield ring
    yield np.eye(5, dtype=bool)
    yield ~np.eye(5, dtype=bool)


@pytest.mark.parametrize("form", ["polygons", "runs", "compressed", "list"])
def test_every_form_is_exactly_the_mask(form):
    for mask in awkward_masks():
        value = json.loads(json.dumps(segmentation(mask, form)))
        assert (decode_segmentation(value, *mask.shape) == mask).all(), mask


def test_a_silhouette_is_one_ring_with_points_at_its_turns():
    square = np.zeros((6, 6), dtype=bool)
    square[1:4, 2:5] = True
    assert rings(square) == [[2, 1, 5, 1, 5, 4, 2, 4]]


@pytest.mark.parametrize("name", REFERENCES)
def test_annotations_are_the_drawn_objects(root, pools, name, capsys):
    path = root / "refer_seg" / name / "instances.json"
    coco = pycoco.COCO(str(path))
    pictures = by_id(pools, "saiapr" if name == "refclef" else "coco")
    assert {image["id"]: (image["height"], image["width"]) for image in coco.dataset["images"]} == {
        number: picture.size for number, picture in pictures.items()
    }
    kinds = {number: kind for kind, number in CATEGORIES.items()}
    forms = set()
    for number, picture in pictures.items():
        found = coco.imgToAnns[number]
        assert [kinds[annotation["category_id"]] for annotation in found] == [o.kind for o in picture.objects]
        for index, annotation in enumerate(found):
            mask = truth(picture, [index])
            assert (decode_segmentation(annotation["segmentation"], *picture.size) == mask).all()
            assert name == "refclef" or (coco.annToMask(annotation) == mask).all()
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["bbox"] == box and annotation["area"] == mask.sum()
            forms.add(type(annotation["segmentation"]).__name__ + type(next(iter(annotation["segmentation"]))).__name__)
    assert forms == {
        "grefcoco": {"listlist", "dictstr"},
        "refzom": {"listlist", "dictstr"},
        "refclef": {"listdict"},
    }.get(name, {"listlist"})


@pytest.mark.parametrize("name", REFERENCES)
def test_references_are_true(root, pools, name):
    pictures = by_id(pools, "saiapr" if name == "refclef" else "coco")
    references = load(root / "refer_seg" / name / REFERENCES[name])
    sizes = set()
    for reference in references:
        picture = pictures[reference["image_id"]]
        listed = reference["ann_id"] if isinstance(reference["ann_id"], list) else [reference["ann_id"]]
        targets = {number - picture.id * 10 for number in listed if number != -1}
        sizes.add(min(len(targets), 2))
        for sentence in reference["sentences"]:
            exists = not sentence.get("is_false_premise", not sentence.get("exist", True))
            assert understood(picture, sentence["sent"]) == (targets if exists else set()), sentence
            assert sentence["tokens"] == sentence["sent"].split() and sentence["sent"] == sentence["raw"]
    assert sizes == ({0, 1, 2} if name in ("grefcoco", "refzom") else {1})
    numbers = [sentence["sent_id"] for reference in references for sentence in reference["sentences"]]
    assert len(set(numbers)) == len(numbers) and numbers == [n for r in references for n in r["sent_ids"]]


@pytest.mark.parametrize("name", ["grefcoco", "refzom"])
def test_phrases_without_a_target_name_nothing_in_the_scene(root, pools, name):
    pictures = by_id(pools)
    found = 0
    for reference in load(root / "refer_seg" / name / REFERENCES[name]):
        nothing = reference["ann_id"] == ([-1] if name == "grefcoco" else [])
        if name == "grefcoco":
            assert reference["no_target"] == nothing
        else:
            assert reference["source"] == ("zero", "one", "many")[min(2, len(reference["ann_id"]))]
        if nothing:
            found += 1
            ((colour, kind),) = re.findall(
                rf"the ({'|'.join(COLOURS)}) ({'|'.join(KINDS)})\b", reference["sentences"][0]["sent"]
            )
            assert not shows(pictures[reference["image_id"]], colour, kind)
    assert found >= len(pictures)


@pytest.mark.parametrize("name", FALSE)
def test_false_premises_are_false_and_their_corrections_true(root, pools, name):
    pictures = by_id(pools)
    key = "exist" if name.startswith("R-") else "is_false_premise"
    truths = set()
    for reference in load(root / "refer_seg" / name / FALSE[name]):
        picture = pictures[reference["image_id"]]
        target = reference["ann_id"] - 10 * picture.id
        for sentence in reference["sentences"]:
            false = sentence[key] != (key == "exist")
            truths.add(false)
            if false:
                ((colour, kind),) = re.findall(rf"the ({'|'.join(COLOURS)}) ({'|'.join(KINDS)})\b", sentence["sent"])
                item = picture.objects[target]
                assert not shows(picture, colour, kind) and (colour == item.colour) != (kind == item.kind)
            assert ("gt_sent" in sentence) == (false and key == "is_false_premise")
            if "gt_sent" in sentence:
                assert understood(picture, sentence["gt_sent"]) == {target}
    assert truths == {True, False}


@pytest.mark.parametrize("name", REFERENCES)
def test_splits_have_several_pictures_with_several_phrases_and_share_none(root, name):
    images = {}
    for reference in load(root / "refer_seg" / name / REFERENCES[name]):
        images.setdefault(reference["split"], {}).setdefault(reference["image_id"], []).extend(reference["sentences"])
    assert set(images) == set(MERGED if name.endswith("g") or name == "refzom" else SPLITS)
    assert all(len(pictures) >= 3 for pictures in images.values()) and len(images["train"]) == IMAGES
    assert all(len(sentences) >= 3 for pictures in images.values() for sentences in pictures.values())
    assert not any(set(a) & set(b) for a, b in itertools.combinations(images.values(), 2))


@pytest.mark.parametrize("name", REFERENCES)
def test_references_are_read(data, name):
    training = (
        false_premise.FalsePremise(data, name, max_questions=3)
        if name in FALSE
        else refer_seg.ReferSeg(data, name, max_questions=3, max_per_question=3)
    )
    assert len(training) == IMAGES
    for index in range(len(training)):
        assert training.training_sample(index, generator_for(index)).conversations
    known = false_premise.SETS if name in FALSE else refer_seg.SETS
    for split in MERGED[1:] if name.endswith("g") or name == "refzom" else SPLITS[1:]:
        benchmark = refer_seg.ReferBenchmark(data, f"{name}|{split}", sets=known)
        for index in range(len(benchmark)):
            sample = benchmark.evaluation_sample(index, protocol="generate")
            assert len(sample.masks) == len(sample.questions) == len(sample.conversations) >= 3


def test_photographs_are_the_pictures_and_shared_where_the_tree_shares_them(root, pools):
    mscoco = root / "refer_seg/images/mscoco/images"
    for picture in pools.pictures("coco"):
        image = (mscoco / f"train2014/COCO_train2014_{picture.id:012d}.jpg").read_bytes()
        same = [root / f"refer_seg/refzom/trainval2014/COCO_train2014_{picture.id:012d}.jpg"]
        if picture.split == "train":
            same += [folder / f"train2017/{picture.id:012d}.jpg" for folder in (mscoco, root / "coco")]
        else:
            same.append(mscoco / f"val2017/{picture.id:012d}.jpg")
        assert all(path.read_bytes() == image == picture.jpeg for path in same)
    folders = ["ade20k/images", "mapillary", "vlpart", "refer_seg/images/saiapr_tc-12", "coco"]
    found = [{path.read_bytes() for path in (root / folder).rglob("*.jpg")} for folder in folders]
    assert not any(a & b for a, b in itertools.combinations(found, 2))
    assert {picture.size for pool in ("coco", "saiapr", "voc") for picture in pools.pictures(pool)} == set(SIZES)


@pytest.mark.parametrize(
    ("name", "pool", "folder", "images", "stem", "values"),
    [
        ("ade20k", "ade20k", "ade20k/annotations/training", "ade20k/images/training", "ADE_train_{:08d}", ADE20K),
        ("cocostuff", "coco", "cocostuff/train2017", "coco/train2017", "{:012d}", COCO_STUFF),
        ("mapillary", "mapillary", "mapillary/training/v2.0/labels", "mapillary/training/images", "drawn_{:06d}",
         MAPILLARY),
    ],
)  # fmt: skip
def test_label_maps(root, data, pools, name, pool, folder, images, stem, values):
    source = LabelMaps(data, name, max_questions=3, max_per_question=3)
    assert len(source) == IMAGES
    seen = set()
    for index, picture in enumerate(pools.train(pool)):
        path = root / folder / f"{stem.format(picture.id)}.png"
        label = read_label_map(path)
        assert Image.open(path).mode == ("P" if name == "mapillary" else "L")
        assert read_image(root / images / f"{path.stem}.jpg").shape[:2] == label.shape == picture.size
        left = np.ones(picture.size, dtype=bool)
        for place, item in enumerate(picture.objects):
            mask = truth(picture, [place])
            assert (label[mask] == values.kinds.get(item.kind, values.void)).all()
            left &= ~mask
        above, below = (values.sky, values.meadow) if picture.background == 0 else (values.wall, values.floor)
        rows = np.arange(picture.size[0])[:, None] < picture.horizon
        assert (label[left & rows] == above).all() and (label[left & ~rows] == below).all()
        assert 0 < picture.horizon < picture.size[0]
        seen |= set(np.unique(label).tolist())
        sample = source.training_sample(index, generator_for(index))
        assert not (sample.masks & (sample.ignore if sample.ignore is not None else False)).any()
    assert values.void in seen and len(seen) >= 9


def test_values_are_the_published_classes(data, root):
    ade20k, stuff = ade20k_names(data), cocostuff_names(data)
    assert {kind: ade20k[value] for kind, value in ADE20K.kinds.items()} == {
        "ball": "ball", "umbrella": "canopy", "cup": "glass", "tent": "tent", "fish": "animal", "star": "plaything",
        "candle": "light",
    }  # fmt: skip
    assert [ade20k[v] for v in (ADE20K.sky, ADE20K.meadow, ADE20K.wall, ADE20K.floor)] == [
        "sky",
        "grass",
        "wall",
        "floor",
    ]
    assert {kind: stuff[value] for kind, value in COCO_STUFF.kinds.items()} == {
        "ball": "sports ball", "umbrella": "umbrella", "cup": "cup", "tent": "tent", "key": "metal", "candle": "light",
    }  # fmt: skip
    names = [stuff[v] for v in (COCO_STUFF.sky, COCO_STUFF.meadow, COCO_STUFF.wall, COCO_STUFF.floor)]
    assert names == ["sky", "grass", None, "carpet"]
    labels = json.loads((root / "mapillary/config_v2.0.json").read_text())["labels"]
    assert [label["readable"] for label in labels] == [readable for _, readable, _ in MAPILLARY_LABELS]
    assert all(kind in labels[value]["name"] for kind, value in MAPILLARY.kinds.items())
    places = {"sky": MAPILLARY.sky, "meadow": MAPILLARY.meadow, "wall": MAPILLARY.wall, "floor": MAPILLARY.floor}
    assert all(labels[value]["name"].endswith(f"--{place}") for place, value in places.items())
    assert labels[MAPILLARY.void]["name"] == "void--unlabeled"


@pytest.mark.parametrize(
    ("name", "path", "pool", "form"),
    [
        ("paco_lvis", "vlpart/paco/annotations/paco_lvis_v1_train.json", "coco", str),
        ("pascal_part", "vlpart/pascal_part/train.json", "voc", list),
    ],
)
def test_parts_make_up_their_objects(root, data, pools, capsys, name, path, pool, form):
    coco = pycoco.COCO(str(root / path))
    pictures = by_id(pools, pool)
    counts = set()
    for image in coco.dataset["images"]:
        picture = pictures[image["id"]]
        assert (image["height"], image["width"]) == picture.size
        found = iter(coco.imgToAnns[picture.id])
        for place, item in enumerate(picture.objects):
            whole = truth(picture, [place])
            regions = {}
            for _ in range(3 if name == "paco_lvis" else 2):
                annotation = next(found)
                category = coco.cats[annotation["category_id"]]["name"]
                if isinstance(annotation["segmentation"], dict):
                    counts.add(type(annotation["segmentation"]["counts"]))
                regions[category.partition(":")[2]] = coco.annToMask(annotation).astype(bool)
                assert category.split(":")[0].split("_(")[0] == item.kind
            upper, lower = regions["upper_half"], regions["lower_half"]
            assert (whole == (upper | lower)).all() and (regions.get("", whole) == whole).all()
            assert np.nonzero(upper)[0].max() < np.nonzero(lower)[0].min()
        assert next(found, None) is None
    assert counts == {form}
    source = Parts(data, name, max_questions=3, max_per_question=3)
    phrases = [q.text for i in range(len(source)) for q in source.training_sample(i, generator_for(i)).questions]
    assert len(source) == IMAGES and not any("_" in phrase or "(" in phrase for phrase in phrases)


def test_conversations_are_true(root, data, pools):
    pictures = by_id(pools)
    numbers = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
    records = load(root / "llava_dataset/llava_instruct_150k.json")
    answered = 0
    for record in records:
        picture = pictures[int(record["id"])]
        turns = record["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2) and len(turns) >= 6
        assert ["<image>" in turn["value"] for turn in turns] == [True] + [False] * (len(turns) - 1)
        pairs = [turn["value"].replace("<image>", "").strip() for turn in turns]
        for question, answer in zip(pairs[::2], pairs[1::2], strict=True):
            words = answer.rstrip(".").split()
            if question.startswith("How many"):
                kind = next((kind for kind in KINDS if plural(kind) in question), None)
                count = sum(kind in (None, item.kind) for item in picture.objects)
                assert count == numbers[words[2]]
            elif question.startswith("What colour"):
                assert shows(picture, words[-1], words[1]) and sum(o.kind == words[1] for o in picture.objects) == 1
            elif question.startswith("Is there a"):
                colour, kind = re.findall(r"Is there a (\w+) (\w+)", question)[0]
                assert shows(picture, colour, kind) == answer.startswith("Yes") and f"{colour} {kind}" in answer
            else:
                (target,) = understood(picture, question)
                assert answer == f"It is the {picture.objects[target].colour} {picture.objects[target].kind}."
                answered += 1
    assert answered >= IMAGES // 2
    source = Vqa(data)
    assert len(source) == len(records) == IMAGES
    assert all(len(source.training_sample(i, generator_for(i)).conversations[0].turns) >= 3 for i in range(IMAGES))


def marks(text):
    return [piece for piece in parse(text) if isinstance(piece, Mark)]


def check_marks(picture, found, shapes):
    """Marks that name objects by their colour and kind, and whose masks are the drawn pixels; returns the objects."""
    targets = []
    for mark in found:
        index = int(mark.id) - 10 * picture.id
        item = picture.objects[index]
        assert mark.label == f"{item.colour} {item.kind}"
        mask = decode_segmentation(polygons(shapes[mark.id], "shape"), *picture.size)
        assert (mask == truth(picture, [index])).all()
        targets.append(index)
    return targets


def test_instances_of_lisa_plus(root, pools):
    pictures = by_id(pools)
    for record in load(root / "reason_seg_plus/LISA_Plus_Instance_Seg.json"):
        picture = pictures[int(record["img_path"].removesuffix(".jpg"))]
        found = [Mark(number, record["points"][number]["label name"]) for number in record["ID"]]
        targets = check_marks(picture, found, record["points"])
        assert set(targets) == understood(picture, record["English Question"]) and len(set(targets)) == len(targets)


def test_reasoned_answers_and_captions_of_lisa_plus(root, pools):
    pictures = by_id(pools)
    for file in ("COT", "Caption"):
        for record in load(root / f"reason_seg_plus/LISA_Plus_{file}.json"):
            picture = pictures[int(record["image_path"].removesuffix(".jpg"))]
            targets = check_marks(picture, marks(record["English Answer"]), record["info"])
            assert targets and len(targets) == len(record["info"])
            assert file == "Caption" or set(targets) == understood(picture, record["English Question"])


def test_dialogues_of_lisa_plus(root, pools):
    pictures = by_id(pools)
    for record in load(root / "reason_seg_plus/LISA_Plus_Conversations.json"):
        picture = pictures[int(record["img_pth"].removesuffix(".jpg"))]
        turns = dialogue(record["output"], "dialogue")
        assert len(turns) == 3
        named = [check_marks(picture, marks(answer), record["info"]) for _, answer in turns]
        assert all(len(targets) == 1 for targets in named) and named[0] != named[1]
        assert check_marks(picture, marks(turns[1][0]), record["info"]) == named[0]
        assert set(named[2]) == understood(picture, plain(turns[2][0]))


def test_lisa_plus_has_every_form_of_markup_and_mask(root, data):
    texts, forms = "", set()
    for kind in ("instance_seg", "cot", "conversations", "caption"):
        source = LisaPlus(data, kind, max_questions=3)
        assert len(source) == IMAGES
        assert all(len(source.training_sample(i, generator_for(i)).masks) for i in range(IMAGES))
    for path in sorted((root / "reason_seg_plus").glob("*.json")):
        texts += path.read_text()
        for record in load(path):
            for shape in record.get("points", record.get("info")).values():
                key = next((key for key in ("points", "polygon") if key in shape), "bare")
                first = shape[0] if key == "bare" else shape[key][0]
                forms.add((key, 0 if isinstance(first, int) else 1 if isinstance(first[0], int) else 2))
    patterns = (
        r"《\d+\|[a-z ]+》",
        r"<\d+\|[a-z ]+>",
        r"\[[a-z ]+ <\d+>",
        r"\[<\d+\|",
        r"\[《\d+\|",
        r"\[\d+\|[a-z ]+[,\]]",
    )
    assert len(patterns) == len(MARKUPS) and all(re.search(pattern, texts) for pattern in patterns)
    assert forms == {(key, depth) for key in ("points", "polygon", "bare") for depth in (0, 1, 2)}


@pytest.mark.parametrize("split", SPLITS)
def test_questions_of_muse_are_true(root, data, pools, split):
    records = load(root / f"multi_reason_seg/MultiReasonSeg/MUSE_{MUSE_FILES[split]}.json")
    pictures = [picture for picture in pools.pictures("coco") if picture.split == split]
    allowed = {"testA": {1, 2}, "testB": {3, 4, 5}}.get(split, {1, 2, 3, 4})
    places, spoken, forms, reasoned = set(), set(), set(), set()
    for record, picture in zip(records, pictures, strict=True):
        name = record.get("file_name") or record["coco_url"]
        places.add(re.search(r"train2014|train2017|val2017", name)[0])
        assert f"{picture.id:012d}.jpg" in name and (record["height"], record["width"]) == picture.size
        assert len(record["ann_list"]) == len(picture.objects)
        for question, answers, text in zip(record["questions"], record["answers"], record["text_answers"], strict=True):
            targets = [record["ann_list"].index(answer) for answer in answers]
            by_use = {
                index
                for index, item in enumerate(picture.objects)
                if any(sentence in question for bank in FUNCTIONS[item.kind].values() for sentence in bank)
            }
            named = meant(SimpleNamespace(objects=picture.objects), SimpleNamespace(kind="attribute", texts=[question]))
            reasoned.add(bool(by_use))
            assert by_use | named == set(targets) and len(set(targets)) == len(targets)
            assert len(targets) in allowed
            spoken.add(text is None)
            if text is not None:
                mentioned = re.findall(r"the (\w+ \w+) \{seg\}", text)
                assert mentioned == [answer["rephrased_name"] for answer in answers]
                assert text.count("{seg}") == len(targets)
            for answer, index in zip(answers, targets, strict=True):
                item, mask = picture.objects[index], truth(picture, [index])
                assert (answer["category_name"], answer["rephrased_name"]) == (item.kind, f"{item.colour} {item.kind}")
                assert (decode_segmentation(answer["segmentation"], *picture.size) == mask).all()
                is_rle = isinstance(answer["segmentation"], dict)
                forms.add(type(answer["segmentation"]["counts"]) if is_rle else "polygons")
    assert places == ({"train2014", "train2017"} if split == "train" else {"val2017"})
    assert spoken == {True, False} and True in reasoned and forms == {"polygons", str, list}
    if split == "train":
        source = Muse(data)
        assert all(len(source.training_sample(i, generator_for(i)).masks) for i in range(len(source)))
    else:
        benchmark = MuseBenchmark(data, f"MultiReasonSeg|{MUSE_FILES[split]}")
        assert all(len(benchmark.evaluation_sample(i, protocol="forced").masks) for i in range(len(benchmark)))


def test_files_are_a_function_of_the_seed(root, tmp_path):
    write_layouts(tmp_path / "again", families=tuple(reversed(FAMILIES)), images=IMAGES, seed=SEED)
    first, second = files(root), files(tmp_path / "again")
    assert first == second
    write_layouts(tmp_path / "other", families=("vqa",), images=IMAGES, seed=SEED + 1)
    other = files(tmp_path / "other")
    assert all(other[name] != first[name] for name in other)
    write_layouts(tmp_path / "one", families=("multi_reason_seg",), images=IMAGES, seed=SEED)
    one = files(tmp_path / "one")
    one.pop("drawn_layouts.json")
    assert one and one == {name: first[name] for name in one}


def test_written_layouts_are_found_and_others_never_overwritten(tmp_path):
    arguments = {"families": ("vqa",), "images": 2, "seed": 0}
    write_layouts(tmp_path, **arguments)
    before = files(tmp_path)
    image = tmp_path / "coco/train2017/000000000001.jpg"
    image.unlink()
    write_layouts(tmp_path, **arguments)
    assert not image.exists()
    for change in ({"seed": 1}, {"images": 3}, {"families": ("vqa", "refer_seg")}):
        with pytest.raises(DataError, match="holds other scenes"):
            write_layouts(tmp_path, **arguments | change)
    manifest = tmp_path / "drawn_layouts.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "complete": False}))
    write_layouts(tmp_path, **arguments)
    assert files(tmp_path) == before


def test_foreign_folders_unknown_families_and_no_images_are_refused(tmp_path):
    (tmp_path / "coco/train2017").mkdir(parents=True)
    with pytest.raises(DataError, match="not drawn scenes") as caught:
        write_layouts(tmp_path, families=("vqa",), images=2, seed=0)
    assert caught.value.path == str(tmp_path / "coco") and not (tmp_path / "drawn_layouts.json").exists()
    with pytest.raises(DataError, match=r"reason_seg.*name one or more of sem_seg, refer_seg"):
        write_layouts(tmp_path, families=("refer_seg", "reason_seg"), images=2, seed=0)
    with pytest.raises(DataError, match="ask for at least 1"):
        write_layouts(tmp_path, families=("refer_seg",), images=0, seed=0)
    write_layouts(tmp_path, families=("correct_refer_seg",), images=1, seed=0)
    assert (tmp_path / "refer_seg/fprefcoco").is_dir()


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["make_scenes", *map(str, arguments)])
    make_scenes.main()


def test_the_command_writes_reason_seg_as_before(tmp_path, monkeypatch, capsys):
    counts = {"train": 6, "val": 3, "test": 3}
    flags = [word for split, count in counts.items() for word in (f"--{split}", count)]
    run(monkeypatch, tmp_path / "command", *flags, "--seed", 5)
    assert capsys.readouterr().out == f"wrote {counts} scenes in {tmp_path / 'command'}\n"
    write_scenes(tmp_path / "call", counts=counts, seed=5)
    written = files(tmp_path / "command")
    assert written == files(tmp_path / "call")
    digest = hashlib.sha256()
    for name in sorted(written):
        digest.update(name.encode() + written[name] if name.endswith(".json") else b"")
    # Photographs are left out, whose bytes depend on the JPEG encoder.
    assert digest.hexdigest() == "a27f5e1fde22cea1754177ea20717dff955f2c9523f2d67ab5812b5e6e2b10db"


def test_the_command_writes_families_by_name(tmp_path, monkeypatch, capsys):
    counts = ("--train", 1, "--val", 1, "--test", 1, "--images", 1)
    run(monkeypatch, tmp_path, "--families", "all", *counts)
    printed = capsys.readouterr().out
    assert "wrote {'train': 1, 'val': 1, 'test': 1}" in printed and "multi_reason_seg: 1 scenes" in printed
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {folder.partition("/")[0] for family in FAMILIES.values() for folder in family.folders} | {
        "reason_seg",
        "drawn_layouts.json",
    }
    run(monkeypatch, tmp_path / "two", "--families", "vqa, multi_reason_seg", *counts)
    assert not (tmp_path / "two/reason_seg").exists() and (tmp_path / "two/multi_reason_seg").is_dir()
    with pytest.raises(SettingsError, match="--families has no 'vqq'; allowed: all, reason_seg"):
        run(monkeypatch, tmp_path / "three", "--families", "vqq")
