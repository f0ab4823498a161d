"""Label maps: what each value means, what is asked for, what is refused; and how targets become a sample."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.families.assembled import Target, assemble
from dataset.families.label_maps import LAYOUTS, LabelMaps, ade20k_names, cocostuff_names, mapillary_names
from dataset.images import read_label_map
from dataset.mixture import Mixture
from dataset.readers.folder import DataFolder
from dataset.sample import RejectSlot, Sample, TargetSlot
from utils.errors import DataError
from utils.seeding import generator_for

MAPILLARY = [
    ("animal--bird", "Bird"),
    ("object--trash-can", "Trash_Can"),
    ("void--ego-vehicle", "Ego Vehicle"),
    ("marking--discrete--crosswalk-zebra", "Lane Marking - Crosswalk"),
    ("marking-only--discrete--crosswalk-zebra", "Lane Marking - Crosswalk"),
    ("void--unlabeled", "Unlabeled"),
]


def blocks(*values: int, side: int = 8) -> np.ndarray:
    """A label map of one upright stripe for each value."""
    return np.repeat(np.asarray(values, np.uint8), side)[None].repeat(side, axis=0)


def write(root: Path, name: str, maps: dict[str, np.ndarray]) -> Path:
    """A dataset's folder; every photograph is grey."""
    layout = LAYOUTS[name]
    for folder in (layout.labels, layout.images[0]):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for stem, label in maps.items():
        picture = Image.fromarray(label)
        if name == "mapillary":
            # The palette's colours are other numbers than the classes.
            picture.putpalette([255 - value for value in range(256) for _ in range(3)])
        picture.save(root / layout.labels / f"{stem}.png")
        Image.new("RGB", label.shape[::-1], (90, 90, 90)).save(root / layout.images[0] / f"{stem}.jpg")
    if name == "mapillary":
        labels = [{"name": key, "readable": text, "evaluate": True} for key, text in MAPILLARY]
        (root / "mapillary" / "config_v2.0.json").write_text(json.dumps({"labels": labels}))
    return root


def opened(root: Path, name: str, questions: int = 3, phrases: int = 3) -> LabelMaps:
    return LabelMaps(DataFolder(root, root / "index"), name, max_questions=questions, max_per_question=phrases)


def drawn(root: Path, name: str, index: int = 0, key: int = 0) -> Sample:
    return opened(root, name).training_sample(index, generator_for(key))


def masks_by_phrase(sample: Sample) -> dict[str, np.ndarray]:
    assert sample.masks.dtype == bool
    return {question.text: sample.masks[question.targets[0]] for question in sample.questions}


def test_class_lists():
    data = DataFolder(Path("nowhere"), Path("nowhere"))
    ade, stuff = ade20k_names(data), cocostuff_names(data)
    assert len(ade) == 151 and len(set(ade)) == 151 and ade[0] is None
    assert [ade[value] for value in (1, 2, 13, 66, 131, 142, 150)] == [
        "wall",
        "building",
        "person",
        "toilet",
        "screen",
        "crt screen",
        "flag",
    ]
    assert len(stuff) == 182 and len({name for name in stuff if name}) == 182 - 28
    assert [stuff[value] for value in (0, 1, 11, 25, 89, 90, 91, 156, 181)] == [
        "person",
        "bicycle",
        "street sign",
        "hat",
        "toothbrush",
        "hair brush",
        "banner",
        "sky",
        "wood",
    ]
    void = [value for value, name in enumerate(stuff) if name is None]
    assert void == [
        *(95, 101, 102, 109, 111, *range(113, 118), 120, 122, 125, 132, 141),
        *(159, 163, 166, *range(170, 178), 179, 180),
    ]


def test_ade20k_names_are_the_official_ones(shared):
    lines = (shared / "data" / "ade20k" / "objectInfo150.txt").read_text().splitlines()[1:]
    official = [line.split("\t")[-1].split(",")[0].strip() for line in lines if line.strip()]
    assert list(ade20k_names(DataFolder(shared, shared))[1:]) == official


def test_ade20k_values(tmp_path):
    sample = drawn(write(tmp_path, "ade20k", {"a": blocks(0, 1, 150, 255)}), "ade20k")
    masks = masks_by_phrase(sample)
    assert set(masks) == {"wall", "flag"}
    assert (masks["wall"] == (blocks(0, 1, 2, 3) == 1)).all() and (masks["flag"] == (blocks(0, 1, 2, 3) == 2)).all()
    assert (sample.void == np.isin(blocks(0, 1, 2, 3), [0, 3])).all()


def test_cocostuff_values(tmp_path):
    label = blocks(0, 89, 95, 181, 255)
    sample = drawn(write(tmp_path, "cocostuff", {"a": label}), "cocostuff")
    masks = masks_by_phrase(sample)
    assert {phrase: np.unique(label[mask]).tolist() for phrase, mask in masks.items()} == {
        "person": [0],
        "toothbrush": [89],
        "wood": [181],
    }
    assert np.unique(label[sample.void]).tolist() == [95, 255]


def test_mapillary_values(tmp_path):
    label = blocks(0, 1, 2, 3, 4, 5)
    root = write(tmp_path, "mapillary", {"a": label})
    sample = drawn(root, "mapillary")
    assert {phrase: np.unique(label[mask]).tolist() for phrase, mask in masks_by_phrase(sample).items()} == {
        "bird": [0],
        "trash can": [1],
        "lane marking - crosswalk": [3, 4],
    }
    assert np.unique(label[sample.void]).tolist() == [2, 5]
    assert "_" not in " ".join(conversation.turns[0].question for conversation in sample.conversations)


@pytest.mark.parametrize("folder", ["images", "cocostuff", "annotations", "v2.0/labels", "Bücher 図"])
@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_any_folder_and_name_will_do(tmp_path, name, folder):
    stem = "cocostuff images annotations v2.0 ü 図"
    sample = drawn(write(tmp_path / folder, name, {stem: blocks(1, 3)}), name)
    assert sample.record == str(tmp_path / folder / LAYOUTS[name].labels / f"{stem}.png")
    assert len(sample.masks) == 2 and sample.image.mean() == pytest.approx(90, abs=2)


def test_any_working_directory_will_do(tmp_path, monkeypatch):
    root = write(tmp_path / "data", "cocostuff", {"a": blocks(0)})
    monkeypatch.chdir(tmp_path)
    assert drawn(root, "cocostuff").query == "person"


def test_files_are_sorted_and_hidden_ones_left_out(tmp_path):
    root = write(tmp_path, "ade20k", {stem: blocks(1) for stem in ("c", "a", "b10", "b9")})
    (root / LAYOUTS["ade20k"].labels / "._a.png").write_bytes(b"\0")
    source = opened(root, "ade20k")
    records = [Path(source.training_sample(index, generator_for(0)).record).stem for index in range(len(source))]
    assert records == ["a", "b10", "b9", "c"]


def test_a_draw_is_a_function_of_index_and_generator(tmp_path):
    root = write(tmp_path, "ade20k", {"a": blocks(*range(1, 21)), "b": blocks(*range(31, 51))})
    source, again = opened(root, "ade20k"), opened(root, "ade20k")
    first = [source.training_sample(index, generator_for(index)) for index in (0, 1, 0)]
    second = [again.training_sample(index, generator_for(index)) for index in (1, 0)]
    for one, other in [(first[0], first[2]), (first[0], second[1]), (first[1], second[0])]:
        assert one.conversations == other.conversations and one.questions == other.questions
        assert (one.masks == other.masks).all()
    asked = {source.training_sample(0, generator_for(key)).questions for key in range(20)}
    assert len(asked) == 20


@pytest.mark.parametrize(("questions", "phrases"), [(3, 3), (3, 1), (1, 2)])
def test_number_of_questions_and_classes(tmp_path, questions, phrases):
    source = opened(write(tmp_path, "ade20k", {"a": blocks(*range(1, 21))}), "ade20k", questions, phrases)
    sample = source.training_sample(0, generator_for(5))
    assert len(sample.conversations) == questions and len(sample.masks) == questions * phrases
    assert len({question.text for question in sample.questions}) == questions * phrases
    slots = [slot.mask for conversation in sample.conversations for slot in conversation.targets]
    assert slots == list(range(questions * phrases))
    for conversation in sample.conversations:
        for slot in conversation.targets:
            assert sample.questions[slot.mask].text in conversation.turns[0].question


def test_memory_follows_the_classes_asked(tmp_path):
    label = np.arange(600 * 800).reshape(600, 800) // 3200 + 1
    source = opened(write(tmp_path, "ade20k", {"a": label.astype(np.uint8)}), "ade20k", 1, 2)
    tracemalloc.start()
    try:
        sample = source.training_sample(0, generator_for(0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Label map and void 2, photograph 6 while it is decoded, masks 2 and once more when stacked.
    assert len(sample.masks) == 2 and peak < 14 * label.size


@pytest.mark.parametrize(
    ("name", "value", "most"), [("ade20k", 151, 150), ("cocostuff", 182, 181), ("mapillary", 6, 5)]
)
def test_unknown_value_is_named(tmp_path, name, value, most):
    root = write(tmp_path, name, {"a": blocks(1, value)})
    with pytest.raises(DataError, match=f"value {value}: allowed are 0 to {most}, and 255") as caught:
        drawn(root, name)
    assert caught.value.path.endswith("a.png")


@pytest.mark.parametrize(
    ("name", "values"), [("ade20k", [0, 255]), ("cocostuff", [95, 255]), ("mapillary", [2, 5, 255])]
)
def test_no_class_is_a_bad_record(tmp_path, name, values):
    source = opened(write(tmp_path, name, {"a": blocks(*values), "b": blocks(1)}), name)
    with pytest.raises(DataError, match="no pixel has a class"):
        source.training_sample(0, generator_for(0))
    draws = [Mixture([(name, source)], [1], seed=0)[draw] for draw in range(20)]
    assert all(draw.sample.record.endswith("b.png") for draw in draws)
    skipped = {entry for draw in draws for entry in draw.skipped}
    assert len(skipped) == 1 and "a.png" in skipped.pop()


def test_sizes_must_agree(tmp_path):
    root = write(tmp_path, "ade20k", {"a": blocks(1, 2)})
    photograph = root / LAYOUTS["ade20k"].images[0] / "a.jpg"
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (16, 8)).save(photograph, exif=turned)
    with pytest.raises(DataError, match=r"8 x 16 pixels, but its image 16 x 8 after the rotation .*EXIF") as caught:
        drawn(root, "ade20k")
    assert caught.value.path.endswith("a.png")
    Image.new("RGB", (16, 8)).save(photograph)
    assert len(drawn(root, "ade20k").masks) == 2


def test_absent_image(tmp_path):
    root = write(tmp_path, "ade20k", {"a": blocks(1), "b": blocks(1)})
    source = opened(root, "ade20k")
    (root / LAYOUTS["ade20k"].images[0] / "b.jpg").unlink()
    with pytest.raises(DataError, match=r"its image b\.jpg is not in"):
        source.training_sample(1, generator_for(0))
    with pytest.raises(FileNotFoundError, match=r"1 of 2 images looked for .*b\.jpg"):
        opened(root, "ade20k")


def test_other_folder_of_coco_photographs(tmp_path):
    root = write(tmp_path, "cocostuff", {"a": blocks(0)})
    first, second = LAYOUTS["cocostuff"].images
    (root / second).parent.mkdir(parents=True)
    (root / first).rename(root / second)
    assert drawn(root, "cocostuff").query == "person"


def test_absent_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="annotations/training does not exist"):
        opened(tmp_path, "ade20k")
    (tmp_path / LAYOUTS["ade20k"].labels).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"holds no \.png"):
        opened(tmp_path, "ade20k")
    write(tmp_path, "mapillary", {"a": blocks(1)})
    (tmp_path / "mapillary" / "config_v2.0.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config_v2\.0\.json does not exist"):
        opened(tmp_path, "mapillary")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"\xff", "not UTF-8"),
        (b"[]", "must hold an object"),
        (b"{}", 'no "labels"'),
        (b'{"labels": []}', "0 labels"),
        (b'{"labels": [3]}', "label 0 is 3"),
        (b'{"labels": [{"name": "a"}]}', 'label 0 has no "readable"'),
        (b'{"labels": [{"readable": "a"}]}', 'label 0 has no "name"'),
        (b'{"labels": [{"name": "void--a", "readable": "A"}]}', "not all of them void"),
    ],
)
def test_malformed_class_list_is_named(tmp_path, content, message):
    path = tmp_path / "mapillary" / "config_v2.0.json"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        mapillary_names(DataFolder(tmp_path, tmp_path))
    assert caught.value.path == str(path)


def test_malformed_label_maps_are_named(tmp_path):
    root = write(tmp_path, "ade20k", {"a": blocks(1)})
    path = root / LAYOUTS["ade20k"].labels / "a.png"
    whole = path.read_bytes()
    for content in (b"", b"no picture", whole[:-30], whole[:40]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"can(not)? be decoded") as caught:
            drawn(root, "ade20k")
        assert caught.value.path == str(path)
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(DataError, match="its pixels are RGB"):
        drawn(root, "ade20k")
    with pytest.raises(DataError, match="does not exist"):
        read_label_map(tmp_path / "b.png")


def test_label_maps_of_one_bit_a_pixel(tmp_path):
    grey = np.array([[0, 255], [255, 0]], np.uint8)
    Image.fromarray(grey).convert("1").save(tmp_path / "grey.png")
    assert (read_label_map(tmp_path / "grey.png") == grey // 255).all()
    indices = np.array([[0, 1], [1, 0]], np.uint8)
    palette = Image.fromarray(indices)
    palette.putpalette([200, 0, 0, 0, 200, 0])
    palette.save(tmp_path / "palette.png", bits=1)
    assert (read_label_map(tmp_path / "palette.png") == indices).all()


def test_real_ade20k(shared, tmp_path):
    real = shared / "data" / "ade20k" / "sampleData"
    for folder in ("images", "annotations"):
        (tmp_path / "ade20k" / folder).mkdir(parents=True)
        (tmp_path / "ade20k" / folder / "training").symlink_to(real / folder)
    source = opened(tmp_path, "ade20k")
    names = ade20k_names(DataFolder(tmp_path, tmp_path))
    assert len(source) == 3
    for index in range(len(source)):
        asked: set[str] = set()
        label = np.array(Image.open(real / "annotations" / f"ADE_val_0000000{index + 1}.png"))
        for key in range(30):
            sample = source.training_sample(index, generator_for(key))
            asked |= set(masks_by_phrase(sample))
            for phrase, mask in masks_by_phrase(sample).items():
                assert (mask == (label == names.index(phrase))).all()
            assert (sample.ignore == (label == 0)).all()
        assert asked == {names[value] for value in np.unique(label) if value}


def test_real_palette_images_hold_classes(shared):
    folder = shared / "data" / "labelme" / "data_dataset_voc"
    for path in sorted((folder / "SegmentationClass").glob("*.png")):
        classes = np.load(folder / "SegmentationClassNpy" / f"{path.stem}.npy")
        assert len(np.unique(classes)) > 2
        assert (read_label_map(path) == np.where(classes < 0, 255, classes)).all()


def box(*place: int) -> np.ndarray:
    mask = np.zeros((6, 7), dtype=bool)
    mask[place[0], place[1]] = True
    return mask


def test_targets_become_slots_in_reading_order():
    targets = [Target("thing A", box(0, 0)), Target("thing B", None), Target("thing C", box(1, 1))]
    image = np.zeros((6, 7, 3), np.uint8)
    for key in range(30):
        sample = assemble(
            "r", image, targets, max_questions=2, max_per_question=2, rng=generator_for(key), ignore=box(5, 5)
        )
        assert len(sample.conversations) == 2 and len(sample.masks) == 2 and sample.ignore.shape == (2, 6, 7)
        parts = [part for c in sample.conversations for part in c.turns[0].answer if not isinstance(part, str)]
        assert len(parts) == 3 == len(sample.questions)
        for part, question in zip(parts, sample.questions, strict=True):
            asked = next(target for target in targets if target.phrase == question.text)
            if asked.mask is None:
                assert part == RejectSlot() and question.targets == ()
            else:
                assert part == TargetSlot(question.targets[0]) and (sample.masks[part.mask] == asked.mask).all()


def test_void_is_one_map_for_all_masks():
    image, void = np.zeros((6, 7, 3), np.uint8), box(5, 5)
    targets = [Target("a", box(0, 0)), Target("b", box(1, 1))]
    sample = assemble("r", image, targets, max_questions=3, max_per_question=3, rng=generator_for(0), ignore=void)
    assert np.shares_memory(sample.ignore[0], sample.ignore[1]) and (sample.ignore == void).all()
    # torch warns of arrays that it must not write to.
    assert sample.ignore.flags.writeable


def test_nothing_there_at_all():
    image = np.zeros((6, 7, 3), np.uint8)
    sample = assemble("r", image, [Target("a", None)], max_questions=3, max_per_question=3, rng=generator_for(0))
    assert sample.masks.shape == (0, 6, 7) and sample.ignore is None and sample.questions[0].targets == ()
    assert RejectSlot() in sample.conversations[0].turns[0].answer


def test_targets_without_a_pixel_are_refused():
    image = np.zeros((6, 7, 3), np.uint8)
    targets = [Target("a", box(0, 0)), Target("b", np.zeros((6, 7), dtype=bool))]
    with pytest.raises(DataError, match='no pixel belongs to "b"') as caught:
        assemble("r", image, targets, max_questions=3, max_per_question=3, rng=generator_for(0))
    assert caught.value.path == "r"
