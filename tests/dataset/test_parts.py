"""Objects and parts: phrases of categories, instances united, what is refused, and real annotations."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset.families.parts import LAYOUTS, Named, Parts, read_name
from dataset.images import read_label_map
from dataset.mixture import Mixture
from dataset.readers.coco import CocoInstances
from dataset.readers.folder import DataFolder
from dataset.sample import Sample
from utils.errors import DataError
from utils.seeding import generator_for

HEIGHT, WIDTH = 24, 32
CATEGORIES = ["kettle", "kettle:spout", "mouse_(computer):scroll_wheel_(small)", "trash_can:rim"]


def square(x: int, y: int, side: int = 4) -> list[list[float]]:
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def pixels(*corners: tuple[int, int], side: int = 4) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for x, y in corners:
        mask[y : y + side, x : x + side] = True
    return mask


def content(annotations: list[tuple[int, int, Any]], names: list[str], categories: list[str] | None = None) -> dict:
    """A COCO file; annotations are (image number, category number, segmentation)."""
    return {
        "categories": [{"id": 7 + number, "name": name} for number, name in enumerate(categories or CATEGORIES)],
        "images": [
            {"id": 50 + number, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for number, name in enumerate(names)
        ],
        "annotations": [
            {"id": 90 + number, "image_id": 50 + image, "category_id": 7 + category, "segmentation": segmentation}
            for number, (image, category, segmentation) in enumerate(annotations)
        ],
    }


def write(root: Path, name: str, file: dict) -> Path:
    layout = LAYOUTS[name]
    path = root / layout.annotations
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(file), encoding="utf-8")
    for image in file["images"]:
        photograph = root / layout.images[0] / image["file_name"]
        photograph.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(photograph)
    return root


def opened(root: Path, name: str = "paco_lvis", questions: int = 3, phrases: int = 3) -> Parts:
    return Parts(DataFolder(root, root / "index"), name, max_questions=questions, max_per_question=phrases)


def masks_by_phrase(sample: Sample) -> dict[str, np.ndarray]:
    assert sample.masks.dtype == bool and len(sample.questions) == len(sample.masks)
    return {question.text: sample.masks[question.targets[0]] for question in sample.questions}


@pytest.mark.parametrize(
    ("category", "named"),
    [
        ("kettle", Named("kettle", None)),
        ("trash_can", Named("trash can", None)),
        ("trash_can:rim", Named("trash can", "rim")),
        ("mouse_(computer)", Named("mouse", None)),
        ("mouse_(computer):scroll_wheel", Named("mouse", "scroll wheel")),
        ("sweater:neck_(v_shaped)_band", Named("sweater", "neck")),
        ("Fußgänger:linker_Arm", Named("Fußgänger", "linker Arm")),
    ],
)
def test_names_of_categories(category, named):
    assert read_name(category, Path("train.json")) == named


@pytest.mark.parametrize("category", [":spout", "kettle:", "a:b:c", "_(computer)", "__"])
def test_other_names_are_refused(tmp_path, category):
    root = write(tmp_path, "paco_lvis", content([(0, 0, square(2, 2))], ["train2017/a.jpg"], [category]))
    with pytest.raises(DataError, match="must be an object, or object:part") as caught:
        opened(root)
    assert caught.value.path.endswith("paco_lvis_v1_train.json") and category in caught.value.reason


def test_a_part_has_two_wordings_of_equal_chance():
    rng = generator_for(0)
    phrases = [Named("trash can", "rim").phrase(rng) for _ in range(1000)]
    assert set(phrases) == {"trash can rim", "the rim of the trash can"}
    assert 440 < phrases.count("trash can rim") < 560
    assert {Named("trash can", None).phrase(rng) for _ in range(20)} == {"trash can"}


def test_instances_of_one_phrase_are_one_mask(tmp_path):
    annotations = [
        (0, 1, square(2, 2)),
        (0, 0, square(0, 0, 9)),
        (0, 1, square(4, 4)),
        (0, 2, square(20, 10)),
        (0, 1, square(15, 15)),
    ]
    source = opened(write(tmp_path, "paco_lvis", content(annotations, ["train2017/a.jpg"])))
    wordings = set()
    for key in range(20):
        masks = masks_by_phrase(source.training_sample(0, generator_for(key)))
        wordings |= set(masks)
        assert len(masks) == 3
        spout = next(mask for phrase, mask in masks.items() if "spout" in phrase)
        assert (spout == pixels((2, 2), (4, 4), (15, 15))).all()
        assert (masks["kettle"] == pixels((0, 0), side=9)).all()
        wheel = next(mask for phrase, mask in masks.items() if "wheel" in phrase)
        assert (wheel == pixels((20, 10))).all()
    assert wordings == {
        "kettle",
        "kettle spout",
        "the spout of the kettle",
        "mouse scroll wheel",
        "the scroll wheel of the mouse",
    }


def test_pascal_part_has_a_folder_of_its_own(tmp_path):
    root = write(tmp_path / "images", "pascal_part", content([(0, 3, square(2, 2))], ["2008_ü.jpg"]))
    sample = opened(root, "pascal_part").training_sample(0, generator_for(0))
    assert sample.record == f"{root / LAYOUTS['pascal_part'].annotations}, image 50"
    assert sample.query in {"trash can rim", "the rim of the trash can"} and sample.ignore is None


def test_images_without_annotations_are_left_out(tmp_path):
    names = ["train2017/a.jpg", "val2017/b.jpg", "train2017/c.jpg"]
    source = opened(write(tmp_path, "paco_lvis", content([(1, 0, square(2, 2))], names)))
    assert len(source) == 1
    assert source.training_sample(0, generator_for(0)).record.endswith("image 51")
    write(tmp_path, "paco_lvis", content([], names))
    with pytest.raises(DataError, match="no image has annotations"):
        opened(tmp_path)


def test_a_phrase_without_a_pixel_is_left_out(tmp_path):
    annotations = [(0, 0, []), (0, 1, [[1.0, 1.0, 2.0, 2.0]]), (0, 2, square(2, 2)), (1, 0, []), (1, 3, [])]
    source = opened(
        write(tmp_path, "paco_lvis", content(annotations, ["train2017/a.jpg", "train2017/b.jpg"])), "paco_lvis", 1, 1
    )
    for key in range(10):
        (phrase,) = masks_by_phrase(source.training_sample(0, generator_for(key)))
        assert "wheel" in phrase
    with pytest.raises(DataError, match="no pixel belongs to any of its annotations") as caught:
        source.training_sample(1, generator_for(0))
    assert caught.value.path.endswith("image 51")


def test_run_lengths(tmp_path):
    crowd = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * 2, HEIGHT * (WIDTH - 2)]}
    file = content([(0, 0, crowd), (0, 0, square(20, 10))], ["train2017/a.jpg"])
    file["annotations"][0]["iscrowd"] = 1
    sample = opened(write(tmp_path, "paco_lvis", file)).training_sample(0, generator_for(0))
    expected = pixels((20, 10))
    expected[:, :2] = True
    assert (masks_by_phrase(sample)["kettle"] == expected).all()


def test_a_draw_is_a_function_of_index_and_generator(tmp_path):
    categories = [f"object {number}:part" for number in range(15)]
    annotations = [(image, number, square(number, image)) for image in range(2) for number in range(15)]
    root = write(tmp_path, "paco_lvis", content(annotations, ["train2017/a.jpg", "train2017/b.jpg"], categories))
    first, again = opened(root), opened(root)
    first.training_sample(1, generator_for(9))
    one, other = (source.training_sample(0, generator_for(3)) for source in (first, again))
    assert one.conversations == other.conversations and (one.masks == other.masks).all()
    assert len(one.masks) == 9 and len(one.conversations) == 3
    for conversation in one.conversations:
        for slot in conversation.targets:
            assert one.questions[slot.mask].text in conversation.turns[0].question
    assert len({first.training_sample(0, generator_for(key)).questions for key in range(20)}) == 20


def test_bad_records_are_named(tmp_path):
    annotations = [
        (0, 0, square(2, 2)),
        (1, 9, square(2, 2)),
        (2, 0, {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}),
        (3, 0, square(2, 2)),
        (4, 0, square(2, 2)),
    ]
    names = [f"train2017/{letter}.jpg" for letter in "abcde"]
    root = write(tmp_path, "paco_lvis", content(annotations, names))
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(root / "coco" / names[3])
    source = opened(root)
    (root / "coco" / names[4]).unlink()
    for index, record, message in [
        (1, "annotation 91", "category 16 is not in the list"),
        (2, "annotation 92", "size"),
        (3, "image 53", f"its mask has {HEIGHT} x {WIDTH} pixels, but its image {HEIGHT + 1} x {WIDTH}"),
        (4, "image 54", r"its image train2017/e\.jpg is not in"),
    ]:
        with pytest.raises(DataError, match=message) as caught:
            source.training_sample(index, generator_for(0))
        assert caught.value.path.endswith(f"paco_lvis_v1_train.json, {record}")
    draws = [Mixture([("parts", source)], [1], seed=0)[draw] for draw in range(10)]
    assert {draw.sample.record.rpartition(" ")[2] for draw in draws} == {"50"}


def test_absent_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"paco_lvis_v1_train\.json does not exist"):
        opened(tmp_path)
    root = write(tmp_path, "paco_lvis", content([(0, 0, square(2, 2))], ["train2017/a.jpg"]))
    (root / "coco" / "train2017" / "a.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 1 images looked for .*train2017/a\.jpg"):
        opened(root)
    (root / LAYOUTS["paco_lvis"].annotations).write_bytes(b"")
    with pytest.raises(DataError, match="it is an empty file"):
        opened(root)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def linked(root: Path, name: str, annotations: Path, images: Path) -> Path:
    layout = LAYOUTS[name]
    for place, target in ((layout.annotations, annotations), (layout.images[0], images)):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).symlink_to(target)
    return root


def test_real_annotations_agree_with_real_label_maps(shared, tmp_path):
    folder = shared / "data" / "labelme"
    file, voc = folder / "data_dataset_coco" / "annotations.json", folder / "data_dataset_voc"
    root = linked(tmp_path, "pascal_part", file, file.parent)
    classes = [name.replace("_", " ").strip() for name in (voc / "class_names.txt").read_text().split("\n")]
    source, coco = opened(root, "pascal_part"), CocoInstances(file, tmp_path / "index")
    assert len(source) == 3
    for index in range(3):
        stem = Path(coco.image(index).file_name).stem
        label = read_label_map(voc / "SegmentationClass" / f"{stem}.png")
        masks = masks_by_phrase(source.training_sample(index, generator_for(0)))
        assert {classes.index(phrase) for phrase in masks} == set(np.unique(label).tolist()) - {0, 255}
        for phrase, mask in masks.items():
            # The two were drawn by different rules, which leave other pixels to the outline.
            assert overlap(mask & (label != 255), label == classes.index(phrase)) > 0.93
        objects = read_label_map(voc / "SegmentationObject" / f"{stem}.png")
        shapes = [coco.mask(annotation, coco.image(index)) for annotation in coco.annotations(index)]
        for number in set(np.unique(objects).tolist()) - {0, 255}:
            assert max(overlap(shape, objects == number) for shape in shapes) > 0.93


def test_real_crowds(shared, tmp_path):
    folder = shared / "data" / "coco" / "COCO_Tiny"
    file = folder / "annotations" / "instances_val2017.json"
    source = opened(linked(tmp_path, "paco_lvis", file, folder / "val2017"))
    known = {entry["name"] for entry in json.loads(file.read_text())["categories"]}
    for index in range(0, len(source), 4):
        sample = source.training_sample(index, generator_for(index))
        assert sample.masks.any(axis=(1, 2)).all() and {question.text for question in sample.questions} <= known
