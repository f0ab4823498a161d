"""Indices of annotation files: equal to the files, shared, kept up to date; malformed records named."""

import json
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from dataset.readers.coco import CocoInstances
from dataset.readers.folder import DataFolder, ImageRoots
from utils.errors import DataError

SQUARE = [[2, 2, 10, 2, 10, 8, 2, 8]]


def coco(images: int = 3, **changed) -> dict:
    content = {
        "info": {"images": "a word that is also a key"},
        "images": [
            {"id": 10 * n + 7, "file_name": f"bild ü {n}.jpg", "height": 20, "width": 30}
            for n in reversed(range(images))
        ],
        "annotations": [
            {"id": 100 - n, "image_id": 10 * (n % images) + 7, "category_id": 1, "segmentation": SQUARE, "iscrowd": 0}
            for n in range(2 * images)
        ],
        "categories": [{"id": 1, "name": "kettle:spout"}],
    }
    return {**content, **changed}


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_coco_as_written(tmp_path):
    read = CocoInstances(write(tmp_path / "a.json", coco()), tmp_path / "index")
    assert len(read) == 3 and read.categories == {1: "kettle:spout"}
    assert [read.image(n).file_name for n in range(3)] == ["bild ü 2.jpg", "bild ü 1.jpg", "bild ü 0.jpg"]
    assert [a["id"] for a in read.annotations(read.number_of(17, "me"))] == [99, 96]
    assert read.annotation(98, "me")["image_id"] == 27
    assert read.mask(read.annotation(98, "me"), read.image(0)).sum() == 48
    assert read.annotation_counts.tolist() == [2, 2, 2]
    read.refuse_problems()
    with pytest.raises(DataError, match=r"me: it refers to annotation 5, which .*a.json lacks"):
        read.annotation(5, "me")
    assert read.missing(np.array([98, 5])).tolist() == [5]


def test_coco_equals_pycocotools(shared, tmp_path):
    for path in sorted((shared / "data" / "coco").glob("*/annotations/*.json")):
        ours, theirs = CocoInstances(path, tmp_path), COCO(path)
        for number in range(len(ours)):
            image = ours.image(number)
            found = {a["id"]: a for a in ours.annotations(number)}
            assert set(found) == set(theirs.getAnnIds(imgIds=image.id))
            for identity, annotation in found.items():
                wanted = theirs.annToMask(theirs.anns[identity]).astype(bool)
                assert np.array_equal(ours.mask(annotation, image), wanted)


def test_an_index_is_made_once_and_follows_the_content(tmp_path):
    path, index = write(tmp_path / "a.json", coco()), tmp_path / "index"
    CocoInstances(path, index)
    made = {folder: folder.stat().st_mtime_ns for folder in index.glob("coco-*") if folder.is_dir()}
    copy = tmp_path / "copy.json"
    copy.write_bytes(path.read_bytes())
    CocoInstances(path, index), CocoInstances(copy, index)
    assert {folder: folder.stat().st_mtime_ns for folder in index.glob("coco-*") if folder.is_dir()} == made
    assert len(CocoInstances(write(path, coco(images=5)), index)) == 5
    assert len(CocoInstances(copy, index)) == 3


def test_a_half_made_index_is_made_again(tmp_path):
    path, index = write(tmp_path / "a.json", coco()), tmp_path / "index"
    CocoInstances(path, index)
    folder = next(folder for folder in index.glob("coco-*") if folder.is_dir())
    (folder / "header").unlink()
    assert len(CocoInstances(path, index)) == 3


def _open(arguments: tuple[Path, Path]) -> int:
    return len(CocoInstances(*arguments))


def test_processes_share_the_making(tmp_path):
    path = write(tmp_path / "a.json", coco(images=200))
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        assert list(pool.map(_open, [(path, tmp_path / "index")] * 4)) == [200] * 4
    assert len([folder for folder in (tmp_path / "index").glob("coco-*") if folder.is_dir()]) == 1


def test_a_source_goes_to_another_process_as_its_paths(tmp_path):
    read = CocoInstances(write(tmp_path / "a.json", coco(images=200)), tmp_path / "index")
    assert len(pickle.dumps(read._records)) < 1000
    assert pickle.loads(pickle.dumps(read._records))[0] == read._records[0]


def changed(what: str, key: str, value: object) -> dict:
    content = coco()
    content[what][1][key] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("images", "height", "tall"), "image 17: \"height\" is 'tall': it must be a whole number"),
        (changed("images", "width", 0), "image 17: its image is 20 x 0: both sides must be at least 1"),
        (changed("images", "file_name", " "), 'image 17: "file_name" is empty'),
        (changed("annotations", "segmentation", None), 'annotation 99: "segmentation" is None'),
        (changed("annotations", "image_id", "x"), "annotation 99: \"image_id\" is 'x'"),
        (changed("annotations", "id", 1.5), 'annotation number 1: "id" is 1.5'),
        (coco(annotations=["no object"]), "annotation number 0 is 'no object': it must be an object"),
    ],
)
def test_malformed_records_are_named_and_stop_evaluation(tmp_path, capsys, content, message):
    read = CocoInstances(write(tmp_path / "a.json", content), tmp_path / "index")
    assert message in capsys.readouterr().out
    with pytest.raises(DataError, match=r"1 of .* records are malformed") as error:
        read.refuse_problems()
    assert message in str(error.value)


def test_a_malformed_annotation_is_met_where_it_is_read(tmp_path):
    content = changed("annotations", "segmentation", None)
    read = CocoInstances(write(tmp_path / "a.json", content), tmp_path / "index")
    bad = read.number_of(content["annotations"][1]["image_id"], "me")
    with pytest.raises(DataError, match="annotation 99"):
        read.annotations(bad)
    assert len(read.annotations(read.number_of(7, "me"))) == 2


@pytest.mark.parametrize("segmentation", [[[1, 2, 3, 4, 5]], {"counts": [3, 4], "size": [20, 30]}, [["a", 1] * 3]])
def test_a_malformed_segmentation_is_met_where_it_is_decoded(tmp_path, segmentation):
    read = CocoInstances(
        write(tmp_path / "a.json", changed("annotations", "segmentation", segmentation)), tmp_path / "index"
    )
    with pytest.raises(DataError, match=r"a.json, annotation 99: "):
        read.mask(read.annotation(99, "me"), read.image(1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is an empty file"),
        (b'{"images": [{"id": 1, ', "not valid JSON"),
        (b"[1, 2]", 'has no "images"'),
        (json.dumps(coco(images=2) | {"images": coco()["images"][:1] * 2}).encode(), "1 image ids are used twice"),
        (json.dumps(coco() | {"annotations": coco()["annotations"][:1] * 2}).encode(), "such as 100"),
        (json.dumps(coco() | {"categories": [{"id": 1}]}).encode(), 'has no "name"'),
    ],
)
def test_files_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        CocoInstances(path, tmp_path / "index")
    assert not [folder for folder in (tmp_path / "index").glob("coco-*") if folder.is_dir()]


def test_annotations_of_no_image_are_counted(tmp_path, capsys):
    CocoInstances(write(tmp_path / "a.json", changed("annotations", "image_id", 4)), tmp_path / "index")
    assert "1 annotations belong to no image" in capsys.readouterr().out


def test_image_roots(tmp_path):
    data = DataFolder(tmp_path, tmp_path / "index")
    with pytest.raises(FileNotFoundError, match=r"one or .*two does not exist"):
        ImageRoots(data, "one", "two")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "a.jpg").touch()
    (tmp_path / "b.jpg").touch()
    roots = ImageRoots(data, "one", "two")
    assert roots.find("a.jpg", "me") == tmp_path / "two" / "a.jpg"
    with pytest.raises(DataError, match=r"me: its image c.jpg is not in"):
        roots.find("c.jpg", "me")
    for name in ("../b.jpg", str(tmp_path / "b.jpg"), "x/../../b.jpg", "..\\b.jpg", "C:\\b.jpg", "\\\\host\\d\\b.jpg"):
        with pytest.raises(DataError, match="leads out of the image folder"):
            roots.find(name, "me")
    for name in ("", "a\0.jpg"):
        with pytest.raises(DataError, match="is no file name"):
            roots.find(name, "me")


@pytest.mark.parametrize(
    ("on_disk", "named"),
    [
        ("sub/a.jpg", "sub\\a.jpg"),
        ("sub/deep/a b.jpg", ".\\sub\\deep\\a b.jpg"),
        ("a\\b.jpg", "a\\b.jpg"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
        ("\uac00.jpg", "\u1100\u1161.jpg"),
    ],
)
def test_names_as_other_systems_write_them(tmp_path, on_disk, named):
    path = tmp_path / "images" / on_disk
    path.parent.mkdir(parents=True)
    path.touch()
    assert ImageRoots(DataFolder(tmp_path, tmp_path), "images").find(named, "me") == path


def test_missing_images_are_met_at_the_start(tmp_path):
    (tmp_path / "images").mkdir()
    roots = ImageRoots(DataFolder(tmp_path, tmp_path), "images")
    with pytest.raises(FileNotFoundError, match=r"me: 200 of 200 images looked for are not in .*: 0.jpg, ") as error:
        roots.check(1000, lambda number: f"{number}.jpg", "me")
    assert str(error.value).count(".jpg") == 20
    with pytest.raises(FileNotFoundError, match="1000 of 1000"):
        roots.check(1000, lambda number: f"{number}.jpg", "me", every=True)


@pytest.mark.parametrize("name", ["a" * 300 + ".jpg", "a\ud800.jpg", "b/" * 3000 + "a.jpg"])
def test_names_that_no_file_can_have_are_not_found(tmp_path, name):
    with pytest.raises(DataError, match="is not in"):
        ImageRoots(DataFolder(tmp_path, tmp_path), ".").find(name, "me")
