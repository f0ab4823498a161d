"""Folders of one's own: every form gives the drawn pixels; what is malformed is refused by name."""

import base64
import json
import pickle
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from dataset.families.custom import Custom, CustomBenchmark, open_form
from dataset.images import read_image
from dataset.readers.labelme import paint_shapes, read_labelme
from utils.errors import DataError
from utils.seeding import generator_for

SIZE = (40, 60)
FORMS = ("labelme", "coco", "phrases", "maps")
LABELS = ("__ignore__", "_background_", "red_kite", "cup", "", "ignore_this")
"""As LabelMe writes such a list: its first line stands before value 0."""


def truth():
    """(H, W) boolean of each phrase, and pixels to be ignored."""
    kite, cup, void = (np.zeros(SIZE, dtype=bool) for _ in range(3))
    kite[3:12, 5:20] = kite[20:30, 40:59] = True
    cup[15:38, 2:30] = True
    cup[20:25, 8:14] = False
    void[20:25, 8:14] = True
    return {"red kite": kite, "cup": cup}, void


def png(pixels):
    return cv2.imencode(".png", np.asarray(pixels, np.uint8))[1].tobytes()


def photo(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = generator_for(3, name).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    (folder / f"{name}.png").write_bytes(png(pixels))


def box(label, left, top, right, bottom, **more):
    points = [[left, top], [right, bottom]]
    return {"label": label, "points": points, "shape_type": "rectangle", **more}


def pasted(label, region):
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    inside = region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    content = base64.b64encode(png(inside)).decode()
    return box(label, int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])) | {
        "shape_type": "mask",
        "mask": content,
    }


def labelme(folder, name, shapes, **more):
    folder.mkdir(parents=True, exist_ok=True)
    content = {"shapes": shapes, "imagePath": f"{name}.png", "imageHeight": SIZE[0], "imageWidth": SIZE[1], **more}
    (folder / f"{name}.json").write_text(json.dumps(content))


def runs(region):
    """Uncompressed run lengths, column by column."""
    values = np.concatenate([[False], region.T.ravel(), [False]])
    edges = np.flatnonzero(np.diff(values.astype(int)))
    counts = np.diff(np.concatenate([[0], edges, [region.size]])).tolist()
    return {"size": list(SIZE), "counts": counts}


def coco(**changed):
    masks, _ = truth()
    regions = [(1, masks["red kite"][:15]), (1, masks["red kite"][15:]), (7, masks["cup"])]
    full = [np.zeros(SIZE, dtype=bool) for _ in regions]
    full[0][:15], full[1][15:], full[2][:] = (region for _, region in regions)
    return {
        "images": [{"id": 5, "file_name": "a.png", "height": 40, "width": 60}],
        "annotations": [
            {"id": 50 + n, "image_id": 5, "category_id": category, "segmentation": runs(full[n])}
            for n, (category, _) in enumerate(regions)
        ],
        "categories": [{"id": 1, "name": "red_kite"}, {"id": 7, "name": "cup"}, {"id": 9, "name": "unused"}],
        **changed,
    }


def write(folder, form, name="a"):
    """One photograph in a form, and a second one without any label."""
    masks, void = truth()
    beside = folder if form == "labelme" else folder / "images"
    photo(beside, name)
    photo(beside, "unlabelled")
    if form == "labelme":
        halves = [pasted("red_kite", masks["red kite"] & (np.arange(40) < at)[:, None]) for at in (15, 40)]
        labelme(folder, name, [*halves, pasted("cup", masks["cup"] | void), pasted("Ignored", void), {"label": "flag"}])
        labelme(folder, "unlabelled", [pasted("ignore", void)])
    elif form == "coco":
        (folder / "export.json").write_text(json.dumps(coco()))
    elif form == "phrases":
        (folder / "masks" / name).mkdir(parents=True)
        for phrase, mask in masks.items():
            (folder / "masks" / name / f"{phrase.replace(' ', '_')}.png").write_bytes(png(mask * 255))
    else:
        (folder / "masks").mkdir()
        label = masks["red kite"] * 1 + masks["cup"] * 2
        label[void] = 4
        label[39, 59] = 255
        (folder / "masks" / f"{name}.png").write_bytes(png(label))
        (folder / "masks" / "unlabelled.png").write_bytes(png(np.zeros(SIZE)))
        (folder / "labels.txt").write_text("\n".join(LABELS))
    return folder


def read(form, number):
    """An image of a form with its labels."""
    image = read_image(form.image(number))
    labels = form.labels(number, image.shape[:2])
    return SimpleNamespace(**vars(labels), image=image)


def source(folder):
    return Custom(folder, folder.parent / "index", max_questions=3, max_per_question=3)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "own"


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_drawn_pixels(folder, form):
    found = source(write(folder, form))
    assert len(found) == 1
    masks, void = truth()
    sample = pickle.loads(pickle.dumps(found)).training_sample(0, generator_for(0))
    assert {q.text for q in sample.questions} == set(masks)
    for question in sample.questions:
        assert (sample.masks[question.targets[0]] == masks[question.text]).all()
    if form in ("labelme", "maps"):
        assert (sample.ignore[0] & void).sum() == void.sum() == sample.ignore[0].sum() - (form == "maps")
        assert not (sample.ignore & sample.masks).any()


@pytest.mark.parametrize("form", FORMS)
def test_the_benchmark_asks_every_phrase(folder, form):
    benchmark = CustomBenchmark(write(folder, form), folder.parent / "index")
    assert (len(benchmark), benchmark.scoring, benchmark.protocols) == (1, "refer", ("forced", "generate"))
    masks, _ = truth()
    for protocol, conversations in (("forced", 1), ("generate", 2)):
        sample = benchmark.evaluation_sample(0, protocol=protocol)
        assert len(sample.conversations) == conversations
        for question, mask in zip(sample.questions, sample.masks, strict=True):
            assert (mask == masks[question.text]).all()
        slots = [slot.mask for c in sample.conversations for slot in c.targets]
        assert slots == ([0, 1] if protocol == "forced" else [])
    with pytest.raises(DataError, match="has no protocol symmetric; allowed: forced, generate"):
        benchmark.evaluation_sample(0, protocol="symmetric")


def test_few_phrases_are_drawn_by_rng_alone(folder):
    found = Custom(write(folder, "maps"), folder, max_questions=1, max_per_question=1)
    drawn = [found.training_sample(0, generator_for(seed)).query for seed in range(20)]
    assert drawn == [found.training_sample(0, generator_for(seed)).query for seed in range(20)]
    assert set(drawn) == {"red kite", "cup"}


def encodings(shared, folder):
    """LabelMe's own example in its three encodings."""
    example = shared / "data" / "labelme"
    shutil.copytree(example / "data_dataset_voc" / "JPEGImages", folder / "images")
    shutil.copytree(example / "data_dataset_voc" / "SegmentationClass", folder / "masks")
    shutil.copy(example / "labels.txt", folder / "labels.txt")
    return [open_form(path, folder) for path in (example / "data_annotated", example / "data_dataset_coco", folder)]


def from_outline(mask):
    """Pixels to the nearest outline of a mask, at least 1; the image's border is one too."""
    padded = np.pad(mask, 1).astype(np.uint8)
    return sum(cv2.distanceTransform(m, cv2.DIST_L2, 5)[1:-1, 1:-1] for m in (padded, 1 - padded))


def test_three_encodings_of_a_photograph(shared, folder):
    """Polygons are filled here with their outline, half-open in COCO, and by Pillow in label maps: outlines, and seams
    of two instances, differ by about a pixel, at sharp corners by up to 3. A label map has one value a pixel, so what
    another label covers is not compared."""
    files, *others = encodings(shared, folder)
    labels = 0
    for number in range(len(files)):
        file = read(files, number)
        for form in others:
            same = [read(form, n) for n in range(len(form)) if read(form, n).image.shape == file.image.shape]
            twin = min(same, key=lambda one: np.abs(one.image.astype(int) - file.image).mean())
            assert set(twin.phrases) == set(file.phrases)
            for phrase in file.phrases:
                mask, other = file.mask_of(phrase), twin.mask_of(phrase)
                covered = [twin.mask_of(name) for name in twin.phrases if name != phrase]
                covered += [file.ignore] if twin.ignore is None else [twin.ignore, file.ignore]
                differs = (mask ^ other) & ~np.logical_or.reduce(covered)
                away = np.minimum(from_outline(mask), from_outline(other))
                assert away[differs].max(initial=0) <= 3, phrase
                assert (differs & (away > 1.5)).sum() < 0.004 * mask.sum(), phrase
                assert (mask & other).sum() > 0.92 * (mask | other).sum(), phrase
                labels += 1
    assert labels == 14


def test_ignore_and_flag_as_in_reason_seg(shared):
    paths = sorted(path for path in (shared / "data" / "reasonseg").glob("*.json") if not path.name.startswith("expl"))
    assert len(paths) == 2
    for path in paths:
        file, content = read_labelme(path), json.loads(path.read_text())
        height, width = cv2.imread(str(path.with_suffix(".jpg"))).shape[:2]
        masks, ignored = file.paint(height, width)
        painted = paint_shapes(content["shapes"], height, width, path=path)
        assert set(masks) == {"target"} and (masks["target"] == (painted == 1)).all()
        assert ignored.any() and (ignored == (painted == 255)).all()


@pytest.mark.parametrize(
    ("points", "kind", "pixels"),
    [
        ([[4.9, 6], [9.2, 8.9]], "rectangle", 6 * 3),
        ([[9.2, 8.9], [4.9, 6]], "rectangle", 6 * 3),
        ([[4, 6], [9, 6], [9, 8], [4, 8]], "rectangle", 6 * 3),
        ([[4, 6], [9, 6], [9, 8], [4, 8]], None, 6 * 3),
        ([[20, 20], [20, 30]], "circle", 316),
    ],
)
def test_shapes(folder, points, kind, pixels):
    photo(folder, "a")
    labelme(folder, "a", [{"label": "thing", "points": points, "shape_type": kind}])
    masks, _ = read_labelme(folder / "a.json").paint(*SIZE)
    assert masks["thing"].sum() == pixels
    if kind == "circle":
        assert (masks["thing"][:, :40] == masks["thing"][:, :40].T).all() and masks["thing"][20, 10:30].all()


def test_image_path_is_followed_inside_the_folder_only(folder):
    photo(folder / "shots", "elsewhere")
    labelme(folder, "a", [box("cup", 1, 1, 9, 9)], imagePath="shots/elsewhere.png")
    assert source(folder).training_sample(0, generator_for(0)).image.shape == (*SIZE, 3)
    photo(folder.parent, "outside")
    for path in ("../outside.png", str(folder.parent / "outside.png"), "..\\outside.png"):
        labelme(folder, "a", [box("cup", 1, 1, 9, 9)], imagePath=path)
        with pytest.raises(DataError, match=r"a.json: its image name .* leads out of the image folder"):
            source(folder)
    photo(folder, "a")
    assert len(source(folder)) == 1


def shape_refused(folder, reason, shape):
    write(folder, "labelme")
    labelme(folder, "a", [box("cup", 1, 1, 9, 9), shape])
    with pytest.raises(DataError, match=reason) as caught:
        source(folder).training_sample(0, generator_for(0))
    assert caught.value.path.endswith("a.json")


@pytest.mark.parametrize("kind", ["point", "line", "linestrip", "points"])
def test_shapes_without_a_region_are_refused(folder, kind):
    shape_refused(
        folder, f'shape 1, "rope", is a {kind}, .*polygon, rectangle', box("rope", 1, 2, 3, 4, shape_type=kind)
    )


@pytest.mark.parametrize(
    ("reason", "shape"),
    [
        ("shape 1 is 7: it must be an object", 7),
        ('shape 1 has no "label"', {"points": [[1, 2], [3, 4], [5, 1]]}),
        ('shape 1: "label" is empty', box(" ", 1, 2, 3, 4)),
        ('shape 1 is labelled "__": give it some words', box("__", 1, 2, 3, 4)),
        ("shape 1 has no points", {"label": "cup", "points": []}),
        (r"shape 1 has the point \[1\]", {"label": "cup", "points": [[1], [2, 3], [5, 1]]}),
        (r"shape 1 has the point \[1, 10000000\]", box("cup", 1, 10_000_000, 3, 4)),
        (
            'shape 1, "cup", is a polygon of 2 points: it must have 3 or more',
            {"label": "cup", "points": [[1, 2], [3, 4]]},
        ),
        ('shape 1, "cup", is a circle of 3', {"label": "cup", "points": [[1, 2]] * 3, "shape_type": "circle"}),
        ("shape 1 has no pixel in the image of 40 x 60", box("cup", 100, 100, 120, 120)),
        ('shape 1 has no "mask"', box("cup", 1, 2, 3, 4, shape_type="mask")),
        ('shape 1: "mask" must be a grey PNG of 3 x 3', box("cup", 1, 2, 3, 4, shape_type="mask", mask="no base64!")),
        ('shape 1: "mask" must be a grey PNG of 3 x 3', box("cup", 1, 2, 3, 4, shape_type="mask", mask="bm8gcG5n")),
        ("shape 1: .*of 9 x 9", pasted("cup", np.eye(3)) | {"points": [[0, 0], [8, 8]]}),
        ("shape 1 reaches out of the image", pasted("cup", np.eye(3)) | {"points": [[58, 0], [60, 2]]}),
    ],
)
def test_malformed_shapes_are_named(folder, reason, shape):
    shape_refused(folder, reason, shape)


@pytest.mark.parametrize(
    ("reason", "content"),
    [
        (r"a.json: it is not valid JSON", '{"shapes": ['),
        (r"a.json: it has neither the \"shapes\" of LabelMe nor the \"images\" of COCO. A folder holds one", "{}"),
        (r"a.json: the file: \"shapes\" is 3: it must be a list", '{"shapes": 3}'),
        (r"a.json: the file: \"imageHeight\" is 'x'", '{"shapes": [], "imageHeight": "x", "imageWidth": 3}'),
        (r"a.json: its \"imageHeight\" and \"imageWidth\" are \(3, 3\), but its image has \(40, 60\)", (3, 3)),
    ],
)
def test_malformed_labelme_files_are_named(folder, reason, content):
    write(folder, "labelme")
    if isinstance(content, str):
        (folder / "a.json").write_text(content)
    else:
        labelme(folder, "a", [box("cup", 1, 1, 2, 2)], imageHeight=content[0], imageWidth=content[1])
    with pytest.raises(DataError, match=reason):
        source(folder).training_sample(0, generator_for(0))


def without(content, key, place):
    content[key] = [{name: value for name, value in content[key][0].items() if name != place}, *content[key][1:]]
    return content


@pytest.mark.parametrize(
    ("reason", "content"),
    [
        (
            'export.json: 1 of 4 records are malformed: annotation 50: "segmentation"',
            without(coco(), "annotations", "segmentation"),
        ),
        ("annotation 50: its category -1 has no name", without(coco(), "annotations", "category_id")),
        ("annotation 50: its category 1 has no name", coco(categories=[{"id": 7, "name": "cup"}])),
        (
            "image 5: it has 40 x 61 pixels, but its image 40 x 60",
            coco(images=[{"id": 5, "file_name": "a.png", "height": 40, "width": 61}]),
        ),
        (
            "its image name '../a.png' leads out",
            coco(images=[{"id": 5, "file_name": "../a.png", "height": 40, "width": 60}]),
        ),
        ("no image has a label that can be asked for", coco(annotations=[])),
        ('it has no "images"', coco(images=[])),
    ],
)
def test_malformed_coco_files_are_named(folder, reason, content):
    write(folder, "coco")
    (folder / "export.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=reason):
        source(folder).training_sample(0, generator_for(0))


def test_coco_images_that_are_missing_are_named(folder):
    write(folder, "coco")
    (folder / "images" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"export.json: 1 of 1 images looked for are not in .*: a.png"):
        source(folder)


def test_a_category_without_a_pixel_is_left_out(folder):
    write(folder, "coco")
    content = coco()
    content["annotations"][2]["segmentation"] = [[1, 1, 2, 2]]
    (folder / "export.json").write_text(json.dumps(content))
    assert source(folder).training_sample(0, generator_for(0)).query == "red kite"
    for annotation in content["annotations"]:
        annotation["segmentation"] = []
    (folder / "export.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="image 5: no pixel belongs to any of its labels"):
        source(folder).training_sample(0, generator_for(0))


@pytest.mark.parametrize(
    ("reason", "pixels"),
    [
        ("cup.png: it has 40 x 20 pixels, but its image 40 x 60", np.ones((40, 20))),
    ],
)
def test_malformed_phrase_masks_are_named(folder, reason, pixels):
    write(folder, "phrases")
    (folder / "masks" / "a" / "cup.png").write_bytes(png(pixels))
    with pytest.raises(DataError, match=reason):
        source(folder).training_sample(0, generator_for(0))


@pytest.mark.parametrize(
    ("reason", "pixels"),
    [
        (r"a.png: a pixel has the value 9, but labels.txt names 0 to 4; add its line", np.full(SIZE, 9)),
        (r"a.png: it has 40 x 20 pixels, but its image 40 x 60", np.ones((40, 20))),
        (r"a.png: its pixels are RGB", np.ones((*SIZE, 3))),
        (r"no image has a label that can be asked for", np.full(SIZE, 255)),
    ],
)
def test_malformed_label_maps_are_named(folder, reason, pixels):
    write(folder, "maps")
    (folder / "masks" / "a.png").write_bytes(png(pixels))
    with pytest.raises(DataError, match=reason):
        source(folder).training_sample(0, generator_for(0))


def test_names_without_the_first_line_of_labelme(folder):
    write(folder, "maps")
    (folder / "labels.txt").write_text("\n".join(LABELS[1:]))
    assert set(read(open_form(folder, folder), 0).phrases) == {"red kite", "cup"}
    (folder / "labels.txt").write_bytes(b"\xff\xfea")
    with pytest.raises(DataError, match=r"labels.txt: its text starts as UTF-16 but breaks off"):
        source(folder)
    (folder / "labels.txt").write_text("\n".join(map(str, range(256))))
    with pytest.raises(DataError, match=r"labels.txt: it names 256 values, but a label map has at most 255"):
        source(folder)


@pytest.mark.parametrize("form", ["phrases", "maps"])
def test_masks_without_their_image_are_named(folder, form):
    write(folder, form)
    (folder / "images" / "a.png").unlink()
    with pytest.raises(DataError, match=r"masks/a.*: there is no image a with .jpg, .jpeg, .png in images/; add it"):
        source(folder)
    shutil.rmtree(folder / "images")
    with pytest.raises(FileNotFoundError, match="images does not exist"):
        source(folder)


def test_two_images_of_one_name_are_refused(folder):
    write(folder, "phrases")
    shutil.copy(folder / "images" / "a.png", folder / "images" / "a.jpg")
    with pytest.raises(DataError, match=r"a.png: it differs from a.jpg in the suffix alone"):
        source(folder)


def test_one_form_in_a_folder(folder):
    forms = "LabelMe files NAME.json .* one COCO file .* PNG masks"
    with pytest.raises(FileNotFoundError, match=f"own does not exist; .*{forms}"):
        source(folder)
    photo(folder, "a")
    with pytest.raises(DataError, match=f"own: it holds no masks. .*{forms}"):
        source(folder)
    labelme(folder, "a", [box("cup", 1, 1, 9, 9)])
    (folder / "._a.json").write_text("a Mac's own")
    assert len(source(folder)) == 1
    for other in ("b.json", "c.json"):
        (folder / other).write_text(json.dumps(coco()))
        with pytest.raises(DataError, match=f"a.json, .*b.json.* do not go together. .*{forms}"):
            source(folder)
        (folder / "a.json").unlink(missing_ok=True)
        labelme(folder, "a", [box("cup", 1, 1, 9, 9)])
    (folder / "a.json").unlink()
    with pytest.raises(DataError, match=r"b.json, .*c.json, which do not go together"):
        source(folder)
    (folder / "c.json").unlink()
    (folder / "masks").mkdir()
    with pytest.raises(DataError, match=r"b.json, .*masks, which do not go together"):
        source(folder)
    (folder / "b.json").unlink()
    (folder / "images").mkdir()
    with pytest.raises(DataError, match=f"no image has a label that can be asked for. .*{forms}"):
        source(folder)
    (folder / "masks" / "a.png").write_bytes(png(np.ones(SIZE)))
    with pytest.raises(DataError, match=r"a.png: a label map needs labels.txt"):
        source(folder)


@pytest.mark.parametrize("form", ["phrases", "coco"])
def test_a_phrase_without_a_pixel_does_not_take_the_others_with_it(folder, form):
    write(folder, form)
    if form == "phrases":
        (folder / "masks" / "a" / "ghost.png").write_bytes(png(np.zeros(SIZE)))
    else:
        content = coco()
        content["annotations"] += [{"id": 99, "image_id": 5, "category_id": 9, "segmentation": []}]
        (folder / "export.json").write_text(json.dumps(content))
    sample = CustomBenchmark(folder, folder.parent / "index").evaluation_sample(0, protocol="generate")
    assert {question.text for question in sample.questions} == {"red kite", "cup"}
    masks, _ = truth()
    assert sorted(mask.sum() for mask in sample.masks) == sorted(mask.sum() for mask in masks.values())


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".jpeg", ".tif", ".webp", ".npy"])
def test_a_mask_of_another_format_is_named(folder, suffix):
    write(folder, "phrases")
    (folder / "masks" / "a" / f"tree{suffix}").write_bytes(b"anything")
    with pytest.raises(DataError, match=rf"tree\{suffix}: masks must be PNG files"):
        source(folder)


def test_a_json_belongs_to_the_image_of_its_own_name(folder):
    for name in ("street", "street.crop"):
        photo(folder, name)
        labelme(folder, name, [box(f"{name} car", 2, 2, 20, 20)], imagePath="street.png")
    crop, street = (read(open_form(folder, folder), number) for number in range(2))
    assert (crop.phrases, street.phrases) == (("street.crop car",), ("street car",))
    assert not np.array_equal(crop.image, street.image)


def test_two_files_of_one_image_are_refused(folder):
    photo(folder, "street")
    for name in ("one", "two"):
        labelme(folder, name, [box("car", 2, 2, 20, 20)], imagePath="street.png")
    with pytest.raises(DataError, match=r"two\.json: its image street\.png has labels in one\.json already"):
        source(folder)
