"""Pictures are written whole, or nothing is and a sentence says why."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from scripts.quickstart import MARK, make_anew
from utils.errors import OutputError, OutputExistsError
from utils.pictures import SUFFIXES, check_picture_path, save_picture

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".PNG"])
def test_a_picture_is_there_afterwards(tmp_path, suffix):
    path = tmp_path / "new" / f"a{suffix}"
    save_picture(path, PICTURE)
    assert cv2.imread(str(path)).shape == PICTURE.shape and [p.name for p in path.parent.iterdir()] == [path.name]
    if suffix == ".png":
        assert np.array_equal(cv2.imread(str(path))[..., ::-1], PICTURE)


@pytest.mark.parametrize("name", ["a", "a.", "a.xyz", "a.png.txt", ""])
def test_a_path_without_a_format_is_refused(tmp_path, name):
    with pytest.raises(OutputError, match=r"needs one of the suffixes \.png"):
        save_picture(tmp_path / name, PICTURE)


@pytest.mark.parametrize("kind", ["a folder", "in a file", "a name that is too long", "a device's folder"])
def test_a_path_that_cannot_be_written_is_refused_before_the_work(tmp_path, kind):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.png").mkdir()
    path = {
        "a folder": tmp_path / "folder.png", "in a file": tmp_path / "file" / "a.png",
        "a name that is too long": tmp_path / f"{'x' * 300}.png", "a device's folder": Path("/dev/null/a.png"),
    }[kind]  # fmt: skip
    for attempt in (lambda: check_picture_path(path), lambda: save_picture(path, PICTURE)):
        with pytest.raises(OutputError, match=r"is a folder|cannot be written"):
            attempt()
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("kind", ["somebody's file", "a file", "a link", "a folder in it"])
def test_the_quick_start_removes_only_what_it_made(tmp_path, kind):
    root, other = tmp_path / "root", tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    if kind == "somebody's file":
        root = other
    elif kind == "a file":
        root = other / "thesis.tex"
    elif kind == "a link":
        os.symlink(other, root)
    else:
        (root / "folder").mkdir(parents=True)
    with pytest.raises(OutputExistsError, match=r"give a new"):
        make_anew(root)
    assert (other / "thesis.tex").read_text() == "mine"


def test_the_quick_start_makes_its_own_folder_anew(tmp_path):
    root = tmp_path / "deep" / "root"
    make_anew(root)
    (root / "model").mkdir()
    make_anew(root)
    assert [path.name for path in root.iterdir()] == [MARK]
