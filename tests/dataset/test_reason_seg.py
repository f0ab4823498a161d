"""ReasonSeg reader: the real files, every form of bad file, the same draw for the same seed."""

import base64
import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from dataset.families.reason_seg import ReasonSeg, ReasonSegTraining
from dataset.readers.reason_seg import read_annotation, read_split
from utils.errors import DataError
from utils.seeding import generator_for

GOOD = {
    "text": ["the dark square", "the square"],
    "is_sentence": False,
    "shapes": [{"label": "target", "points": [[5, 5], [20, 5], [20, 20], [5, 20]]}],
}


def write(folder, name="one", content=GOOD, image=True, encoding="utf-8"):
    folder.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode(encoding)
    (folder / f"{name}.json").write_bytes(data)
    if image:
        cv2.imwrite(str(folder / f"{name}.jpg"), np.full((40, 60, 3), 90, np.uint8))
    return folder / f"{name}.json"


@pytest.fixture
def split(tmp_path):
    return tmp_path / "reason_seg" / "ReasonSeg" / "train"


def test_the_two_real_samples(shared, split):
    split.mkdir(parents=True)
    for path in (shared / "data" / "reasonseg").glob("*_o.*"):
        shutil.copy(path, split)
    source = ReasonSeg(split.parents[2], "train")
    deer, car = source.evaluation_sample(0, protocol="forced"), source.evaluation_sample(1, protocol="generate")
    assert deer.masks.shape == (1, *deer.image.shape[:2]) and deer.masks.any() and deer.ignore.any()
    assert not (deer.masks[0] & deer.ignore).any()
    assert deer.conversations[0].turns[0].question.endswith("attracting mates? Please output segmentation mask.")
    assert car.conversations[0].turns[0].question == (
        "What is the places where the driver can observe the speed in this image? Please output segmentation mask."
    )
    assert car.conversations[0].turns[0].answer is None
    drawn = ReasonSegTraining(split.parents[2], ("train",)).training_sample(0, generator_for(0))
    assert len(drawn.conversations) == 3 and all(len(c.targets) == 1 for c in drawn.conversations)


def test_a_draw_depends_on_its_generator_alone(split):
    write(split)
    source = ReasonSegTraining(split.parents[2], ("train",))
    first, again = (source.training_sample(0, generator_for(5)) for _ in range(2))
    assert first.conversations == again.conversations


def test_cp1252(split):
    path = write(split, content={**GOOD, "text": ["the caf\u00e9 table"]}, encoding="cp1252")
    assert read_annotation(path).texts == ("the caf\u00e9 table",)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shapes": None}, '"shapes" is missing'),
        ({"text": []}, '"text" must be a list of at least one string'),
        ({"text": ["the cup", "  "]}, "holds an empty query"),
        ({"text": [3]}, '"text" must be a list'),
        (b"{not json", "not valid JSON"),
        (b"[]", "must hold an object"),
        (b"\x81", "not UTF-8"),
    ],
)
def test_a_malformed_annotation_is_named_at_start(split, change, sentence):
    path = write(split, content=change if isinstance(change, bytes) else {**GOOD, **change})
    with pytest.raises(DataError, match=sentence) as raised:
        ReasonSegTraining(split.parents[2], ("train",))
    assert raised.value.path == str(path)


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        ([], "no pixel belongs to a target"),
        ([{"label": "flag", "points": [[1, 1], [9, 9], [1, 9]]}], "no pixel belongs to a target"),
        ([{"label": "target", "points": [[500, 500], [600, 500], [600, 600]]}], "no pixel in the image"),
        ([{"label": "target", "points": []}], "points"),
        ([{"points": [[1, 1], [9, 9], [1, 9]]}], "label"),
    ],
)
def test_bad_shapes_are_named_when_the_sample_is_read(split, shapes, sentence):
    write(split, content={**GOOD, "shapes": shapes})
    with pytest.raises(DataError, match=sentence):
        ReasonSegTraining(split.parents[2], ("train",)).training_sample(0, generator_for(0))


def test_missing_and_unreadable_files(split, tmp_path):
    with pytest.raises(FileNotFoundError, match="must hold reason_seg/ReasonSeg/train"):
        ReasonSegTraining(tmp_path, ("train",))
    write(split)
    (split / "one.jpg").write_bytes(b"\xff\xd8 not a picture")
    with pytest.raises(DataError, match="not an image that can be decoded"):
        ReasonSegTraining(tmp_path, ("train",)).training_sample(0, generator_for(0))
    (split / "one.json").unlink()
    with pytest.raises(DataError, match=r"every \.jpg needs a \.json"):
        ReasonSegTraining(tmp_path, ("train",))
    with pytest.raises(DataError, match="no such split; allowed: train, val"):
        ReasonSeg(tmp_path, "trian")


def test_queries_of_test_are_split_by_kind(split):
    folder = split.parent / "test"
    for index in range(5):
        write(folder, f"s{index}", {**GOOD, "is_sentence": index % 2 == 0})
    sizes = [len(ReasonSeg(split.parents[2], name)) for name in ("test_longquery", "test_shortquery", "test_overall")]
    assert sizes == [3, 2, 5]


def test_explanations(split):
    write(split)
    with pytest.raises(FileNotFoundError, match="--explanatory -1"):
        ReasonSegTraining(split.parents[2], ("train",), explanatory=0.1)
    explanatory = split.parent / "explanatory"
    explanatory.mkdir()
    entries = [{"image": "one.jpg", "query": "?", "outputs": "It is dark."}]
    (explanatory / "train.json").write_text(json.dumps(entries))
    source = ReasonSegTraining(split.parents[2], ("train",), explanatory=0.3)
    kinds = set()
    for draw in range(60):
        sample = source.training_sample(0, generator_for(draw))
        answer = sample.conversations[0].turns[0].answer
        text = " ".join(part for part in answer if isinstance(part, str))
        targets = len(sample.conversations[0].targets)
        assert targets == (1 if len(sample.masks) else 0)
        kinds.add((targets, "It is dark." in text))
    assert kinds == {(1, False), (1, True), (0, True)}


def test_several_queries_of_one_image(split):
    write(split)
    other = {**GOOD, "text": ["the left"], "shapes": [{"label": "target", "points": [[30, 5], [40, 5], [40, 20]]}]}
    write(split, "one.2", other, image=False)
    benchmark = ReasonSeg(split.parents[2], "train")
    assert [benchmark.evaluation_sample(index, protocol="forced").query for index in range(2)] == [
        "the dark square",
        "the left",
    ]
    source = ReasonSegTraining(split.parents[2], ("train",), max_queries=2)
    assert len(source) == 1
    for draw in range(5):
        sample = source.training_sample(0, generator_for(draw))
        assert sorted(c.targets[0].mask for c in sample.conversations) == [0, 1]
        for conversation in sample.conversations:
            mask = sample.masks[conversation.targets[0].mask]
            assert mask[10, 10] == ("square" in conversation.turns[0].question)
    assert (
        len(
            ReasonSegTraining(split.parents[2], ("train",), max_queries=9)
            .training_sample(0, generator_for(0))
            .conversations
        )
        == 3
    )


def box_mask(left, top, right, bottom):
    mask = np.zeros((40, 60), bool)
    mask[top : bottom + 1, left : right + 1] = True
    return mask


def turned_box():
    """Corners (30, 5), (45, 20), (30, 35), (15, 20): a square on its corner."""
    rows, columns = np.ogrid[:40, :60]
    return abs(rows - 20) + abs(columns - 30) <= 15


def png_text(mask):
    return base64.b64encode(cv2.imencode(".png", mask.astype(np.uint8))[1].tobytes()).decode()


CORNERS = [[30, 5], [45, 20], [30, 35], [15, 20]]
DISC = np.hypot(*np.ogrid[0.5 - 20 : 40 - 20, 0.5 - 30 : 60 - 30]) <= 10
TYPES = {
    "rectangle": ([[10, 8], [40, 30]], box_mask(10, 8, 40, 30)),
    "rectangle, corners exchanged": ([[40, 8], [10, 30]], box_mask(10, 8, 40, 30)),
    "rectangle of four points": ([[10, 8], [40, 8], [40, 30], [10, 30]], box_mask(10, 8, 40, 30)),
    "rectangle, turned": (CORNERS, turned_box()),
    "rotation": (CORNERS, turned_box()),
    "circle": ([[30, 20], [40, 20]], DISC),
    "mask": ([[10, 8], [19, 11]], box_mask(10, 8, 19, 11)),
    "polygon": ([[10, 8], [40, 8], [40, 30], [10, 30]], box_mask(10, 8, 40, 30)),
    "": ([[10, 8], [40, 8], [40, 30], [10, 30]], box_mask(10, 8, 40, 30)),
}


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_shape_is_drawn_as_what_it_is(split, kind):
    points, wanted = TYPES[kind]
    shape = {"label": "target", "points": points, "shape_type": kind.split(",")[0].split(" of")[0]}
    if kind == "mask":
        shape["mask"] = png_text(np.ones((4, 10)))
    write(split, content={**GOOD, "shapes": [shape]})
    found = ReasonSeg(split.parents[2], "train").evaluation_sample(0, protocol="forced").masks[0]
    assert (found & wanted).sum() / (found | wanted).sum() > 0.95, "rings of pixels along slanted edges may differ"


@pytest.mark.parametrize("kind", ["point", "points", "line", "linestrip", "cuboid", 3, ["polygon"]])
def test_other_types_are_refused_by_name(split, kind):
    write(split, content={**GOOD, "shapes": [{"label": "target", "points": [[1, 1], [9, 9]], "shape_type": kind}]})
    with pytest.raises(DataError, match=r"covers no region|is unknown here|must be a text"):
        ReasonSeg(split.parents[2], "train")


@pytest.mark.parametrize(("height", "width"), [(60, 40), (80, 120), (41, 60)])
def test_annotations_of_another_size_are_refused(split, height, width):
    write(split, content={**GOOD, "imageHeight": height, "imageWidth": width})
    with pytest.raises(DataError, match=r"one\.json: its .imageHeight. and .imageWidth. are"):
        ReasonSeg(split.parents[2], "train").evaluation_sample(0, protocol="forced")


@pytest.mark.parametrize("turned", [True, False])
def test_a_photograph_that_the_camera_turned(split, turned):
    size = {"imageHeight": 60, "imageWidth": 40} if turned else {"imageHeight": 40, "imageWidth": 60}
    path = write(split, content={**GOOD, **size}, image=False)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(path.with_suffix(".jpg"), exif=exif)
    source = ReasonSeg(split.parents[2], "train")
    if turned:
        assert source.evaluation_sample(0, protocol="forced").masks.shape == (1, 60, 40)
    else:
        with pytest.raises(DataError, match=r"after the rotation that the image file asks for \(EXIF\)"):
            source.evaluation_sample(0, protocol="forced")


def queries(split):
    records = read_split(split.parents[2], "train")
    return {image.path.name: [annotation.texts[0] for annotation in image.annotations] for image in records}


def named(split, name, text=None):
    write(split, name, {**GOOD, "text": [text or name]}, image=text is None)


@pytest.mark.parametrize(
    ("own", "further", "wanted"),
    [
        (["street", "street.crop"], [], {"street.jpg": ["street"], "street.crop.jpg": ["street.crop"]}),
        (["street", "street.2"], [], {"street.jpg": ["street"], "street.2.jpg": ["street.2"]}),
        (["street"], ["street.2", "street.10"], {"street.jpg": ["street", "street.10", "street.2"]}),
        (["a.b.c", "a.b"], ["a.b.3"], {"a.b.c.jpg": ["a.b.c"], "a.b.jpg": ["a.b", "a.b.3"]}),
        (["v1.2"], ["v1.2.2"], {"v1.2.jpg": ["v1.2", "v1.2.2"]}),
    ],
)
def test_dots_in_names(split, own, further, wanted):
    for name in own:
        named(split, name)
    for name in further:
        named(split, name, text=name)
    assert queries(split) == wanted
    assert len(ReasonSeg(split.parents[2], "train")) == len(own) + len(further)


@pytest.mark.parametrize("stray", ["street.crop", "other", "street.two"])
def test_an_annotation_without_an_image_is_named(split, stray):
    named(split, "street")
    named(split, stray, text=stray)
    with pytest.raises(DataError, match=rf"{stray}\.json: there is no image"):
        read_split(split.parents[2], "train")


def test_two_images_of_one_annotation_are_named(split):
    named(split, "street")
    shutil.copy(split / "street.jpg", split / "street.jpeg")
    with pytest.raises(DataError, match="in the suffix alone"):
        read_split(split.parents[2], "train")


def test_files_that_a_mac_leaves_are_passed_over(split):
    named(split, "street")
    (split / "._street.json").write_bytes(b"\0\5\26\7")
    (split / "._street.jpg").write_bytes(b"\0\5\26\7")
    assert queries(split) == {"street.jpg": ["street"]}


def test_decomposed_names_belong_together(split):
    write(split, "cafe\u0301", image=False)
    cv2.imwrite(str(split / "caf\u00e9.jpg"), np.full((40, 60, 3), 90, np.uint8))
    assert list(queries(split)) == ["caf\u00e9.jpg"]


@pytest.mark.parametrize("size", [{"imageHeight": 41}, {"imageWidth": 30}, {"imageHeight": None, "imageWidth": 61}])
def test_one_side_alone_is_compared_too(split, size):
    write(split, content={**GOOD, **size})
    with pytest.raises(DataError, match='"imageHeight" and "imageWidth" are'):
        ReasonSeg(split.parents[2], "train").evaluation_sample(0, protocol="forced")


@pytest.mark.parametrize("kind", ["rotation", "oriented_rectangle", "rotated_rectangle", "rotated_box", "rectangle"])
def test_turned_boxes_cover_what_lies_between_their_corners(split, kind):
    corners = [[20, 10], [30, 20], [20, 30], [10, 20]]
    write(split, content={**GOOD, "shapes": [{"label": "target", "points": corners, "shape_type": kind}]})
    assert ReasonSeg(split.parents[2], "train").evaluation_sample(0, protocol="forced").masks.sum() == 221
