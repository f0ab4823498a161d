"""Damaged datasets of every family, and their indices: a sentence, or samples; no crash, no hang."""

import base64
import json
import shutil

import cv2
import numpy as np
import pytest
from hypothesis import strategies as st

from dataset.checking import check_records
from dataset.drawn.writer import write_scenes
from dataset.families.custom import Custom, CustomBenchmark
from dataset.families.reason_seg import ReasonSeg, ReasonSegTraining
from dataset.readers.folder import DataFolder
from dataset.registry import training_sources
from dataset.source import Checkable, FamilyOptions
from tests.drawn.layouts import FAMILIES, write_layouts
from tests.fuzz.mutations import damaged_file, replaced
from tests.fuzz.running import fuzz
from utils.errors import DataError
from utils.seeding import generator_for


def read_all(source):
    """Every record of a source or benchmark; those that cannot be used are refused one by one."""
    if isinstance(source, Checkable):
        for index in range(len(source)):
            try:
                source.check(index)
            except DataError as error:
                assert str(error).strip()
    for index in range(len(source)):
        try:
            if hasattr(source, "training_sample"):
                sample = source.training_sample(index, generator_for(0, index))
            else:
                sample = source.evaluation_sample(index, protocol="forced")
        except DataError as error:
            assert str(error).strip()
            continue
        assert sample.masks.dtype == bool and sample.masks.shape[1:] == sample.image.shape[:2]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Folders of one's own in every form, with every type of shape and mask."""
    root = tmp_path_factory.mktemp("own")
    picture = np.random.default_rng(0).integers(0, 255, (24, 32, 3)).astype(np.uint8)
    mask = np.zeros((24, 32), np.uint8)
    mask[4:12, 6:20] = 255
    for form in ("labelme", "coco/images", "phrases/images", "phrases/masks/a", "maps/images", "maps/masks"):
        (root / form).mkdir(parents=True)
    for folder, suffix in (
        ("labelme", "jpg"),
        ("coco/images", "png"),
        ("phrases/images", "jpg"),
        ("maps/images", "png"),
    ):
        cv2.imwrite(str(root / folder / f"a.{suffix}"), picture)
    png = cv2.imencode(".png", mask[4:12, 6:20])[1].tobytes()
    shapes = [
        {"label": "cup", "points": [[2, 2], [20, 2], [20, 20]], "shape_type": "polygon"},
        {"label": "red_kite", "points": [[2, 2], [20, 20]], "shape_type": "rectangle"},
        {"label": "ball", "points": [[12, 12], [12, 16]], "shape_type": "circle"},
        {"label": "ignore", "points": [[1, 1], [4, 1], [4, 4], [1, 4]], "shape_type": "rotation"},
        {"label": "tree", "points": [[6, 4], [19, 11]], "shape_type": "mask", "mask": base64.b64encode(png).decode()},
    ]
    labelme = {"shapes": shapes, "imagePath": "a.jpg", "imageHeight": 24, "imageWidth": 32, "flags": {}}
    (root / "labelme" / "a.json").write_text(json.dumps(labelme))
    segmentations = [
        [[2, 2, 20, 2, 20, 20]],
        {"size": [24, 32], "counts": [100, 20, 648]},
        {"size": [24, 32], "counts": "T3h4"},
    ]
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "height": 24, "width": 32}],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "tree"}],
        "annotations": [
            {
                "id": n,
                "image_id": 1,
                "category_id": 1 + n % 2,
                "segmentation": s,
                "bbox": [1, 1, 5, 5],
                "iscrowd": n // 1 % 2,
            }
            for n, s in enumerate(segmentations)
        ],
    }
    (root / "coco" / "a.json").write_text(json.dumps(coco))
    cv2.imwrite(str(root / "phrases" / "masks" / "a" / "cup.png"), mask)
    cv2.imwrite(str(root / "maps" / "masks" / "a.png"), mask // 255)
    (root / "maps" / "labels.txt").write_text("background\ncup\n")
    return root


@fuzz(80)
def test_own_data(data, own, tmp_path_factory):
    folder = own / data.draw(st.sampled_from(["labelme", "coco", "phrases", "maps"]))
    path = data.draw(st.sampled_from(sorted(path for path in folder.rglob("*") if path.is_file())))
    index = tmp_path_factory.getbasetemp() / "own_index"
    with replaced(path, data.draw(damaged_file(path))):
        source = Custom(folder, index, max_questions=2, max_per_question=2)
        read_all(source)
        read_all(CustomBenchmark(folder, index))
        check_records(source, index, name="custom", workers=0)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, counts={"train": 2, "val": 1, "test": 1}, seed=0)
    return root


@fuzz(40)
def test_reason_seg(data, scenes):
    files = sorted(path for path in scenes.rglob("*") if path.is_file() and path.suffix in (".json", ".jpg"))
    path = data.draw(st.sampled_from(files))
    with replaced(path, data.draw(damaged_file(path))):
        read_all(ReasonSegTraining(scenes, ("train",), explanatory=0.5))
        read_all(ReasonSeg(scenes, "val"))


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    root = tmp_path_factory.mktemp("layouts")
    write_layouts(root, families=tuple(FAMILIES), images=2, seed=0)
    return root


@fuzz(70)
def test_published_layouts(data, layouts, tmp_path_factory):
    family = data.draw(st.sampled_from(sorted(FAMILIES)))
    folders = [layouts / name for name in FAMILIES[family].folders]
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    annotations = [path for path in files if path.suffix in (".json", ".p", ".txt")]
    path = data.draw(st.sampled_from(annotations if annotations and data.draw(st.integers(0, 3)) else files))
    index = tmp_path_factory.getbasetemp() / "layouts_index"
    with replaced(path, data.draw(damaged_file(path))):
        for _, source in training_sources(family, DataFolder(layouts, index), FamilyOptions()):
            read_all(source)


@pytest.fixture(scope="module")
def indexed(layouts, tmp_path_factory):
    """An index of a large file, and what its records give."""
    index = tmp_path_factory.mktemp("indexed")
    return index, digest(layouts, index)


def digest(layouts, index):
    ((_, source),) = training_sources("vqa", DataFolder(layouts, index), FamilyOptions())
    samples = [source.training_sample(n, generator_for(0, n)) for n in range(len(source))]
    return [(sample.record, sample.conversations) for sample in samples]


@fuzz(40)
def test_an_index_is_right_or_made_again_or_refused(data, layouts, indexed, tmp_path_factory):
    whole, wanted = indexed
    index = tmp_path_factory.getbasetemp() / "damaged_index"
    shutil.rmtree(index, ignore_errors=True)
    shutil.copytree(whole, index)
    files = sorted(path for path in index.rglob("*") if path.is_file() and path.suffix != ".lock")
    path = data.draw(st.sampled_from(files))
    with replaced(path, data.draw(damaged_file(path))):
        assert digest(layouts, index) == wanted
