"""A damaged index is never read: it is made again with a line said, or refused with the remedy."""

import json
import os
import random
import shutil
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from dataset.readers.coco import CocoInstances
from dataset.readers.records import index_list, open_records
from utils.errors import DataError

RING = [[1.0, 1.0, 9.0, 1.0, 9.0, 9.0]]


@pytest.fixture
def source(tmp_path) -> Path:
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": 20, "width": 30} for n in range(4)],
        "annotations": [{"id": 10 + n, "image_id": n % 4, "category_id": 1, "segmentation": RING} for n in range(9)],
        "categories": [{"id": 1, "name": "cup"}],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    return path


def content(source: Path, index: Path):
    read = CocoInstances(source, index)
    return [(read.image(n), read.annotations(n)) for n in range(len(read))], read.categories


def folder_of(index: Path) -> Path:
    return next(path for path in index.glob("coco-*") if path.is_dir())


def files_of(index: Path) -> list[Path]:
    return sorted(path for path in index.rglob("*") if path.is_file() and path.suffix != ".lock")


def flipped(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


MUTATIONS = {
    "flip": flipped,
    "cut": lambda data, rng: data[: rng.randrange(len(data))],
    "empty": lambda data, rng: b"",
    "longer": lambda data, rng: data + rng.randbytes(7),
    "other": lambda data, rng: rng.randbytes(len(data)),
    "json": lambda data, rng: b'{"files": {}}',
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_damaged_file_is_found(source, tmp_path, mutation):
    index, rng = tmp_path / "index", random.Random(mutation)
    right = content(source, index)
    for path in files_of(index):
        for _ in range(4):
            path.write_bytes(MUTATIONS[mutation](path.read_bytes(), rng))
            assert content(source, index) == right, path
    assert content(source, index) == right


@pytest.mark.parametrize("what", ["nothing", "folder", "pipe", "link to nothing"])
def test_a_file_replaced_by_something_else_is_found(source, tmp_path, what):
    index = tmp_path / "index"
    right = content(source, index)
    for path in files_of(index):
        path.unlink()
        if what == "folder":
            path.mkdir()
        if what == "pipe":
            os.mkfifo(path)
        if what == "link to nothing":
            path.symlink_to(tmp_path / "absent")
        if path.parent.name == "known" and path.is_dir():
            with pytest.raises(DataError, match=r"its index cannot be made in .*; give --index_dir a folder"):
                content(source, index)
            path.rmdir()
        assert content(source, index) == right, path


def test_one_line_says_that_it_is_made_again(source, tmp_path, capsys):
    index = tmp_path / "index"
    right = content(source, index)
    path = folder_of(index) / "records.bin"
    path.write_bytes(path.read_bytes()[:-3])
    capsys.readouterr()
    assert content(source, index) == right
    said = capsys.readouterr()
    (line,) = (said.out + said.err).splitlines()
    assert line.startswith(f"{source}: its index {path.parent} is damaged (records.bin has ")
    assert line.endswith(" and is made again")
    content(source, index)
    assert capsys.readouterr().out == ""


def test_a_bit_that_flips_without_a_trace_is_found_when_it_is_read(source, tmp_path):
    index = tmp_path / "index"
    content(source, index)
    path = folder_of(index) / "records.bin"
    time = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes().replace(b"2.jpg", b"3.jpg"))
    os.utime(path, ns=(time, time))
    read = CocoInstances(source, index)
    assert read.image(1).file_name == "1.jpg"
    with pytest.raises(DataError, match=r"its index .* is damaged at record 2; delete that folder: it is made again"):
        read.image(2)


def test_the_place_of_another_file_is_not_believed(source, tmp_path):
    index = tmp_path / "index"
    right = content(source, index)
    (known,) = (path for path in (index / "known").iterdir() if path.suffix != ".lock")
    known.write_text("../../elsewhere")
    assert content(source, index) == right
    other = tmp_path / "b.json"
    other.write_text(source.read_text().replace("cup", "mug"))
    assert content(other, index) != right
    (theirs,) = (path for path in (index / "known").iterdir() if path.suffix != ".lock" and path != known)
    shutil.copy(theirs, known)
    assert content(source, index) == right
    ours = index / json.loads(known.read_text().splitlines()[1])[1]
    (foreign,) = (path for path in index.glob("coco-*") if path.is_dir() and path != ours)
    shutil.rmtree(ours)
    shutil.copytree(foreign, ours)
    assert content(source, index) == right


def test_an_index_that_cannot_be_written_is_refused_with_the_remedy(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"a.json: its index cannot be made in .*file.*give --index_dir a folder"):
        content(source, tmp_path / "file" / "index")
    index = tmp_path / "index"
    content(source, index)
    folder = folder_of(index)
    lock = folder.with_name(f"{folder.name}.lock")
    lock.unlink()
    lock.mkdir()
    assert content(source, index), "a whole index needs no lock"
    (folder / "header").write_bytes(b"")
    with pytest.raises(DataError, match="its index cannot be made"):
        content(source, index)


def _open(arguments):
    return content(*arguments)


def test_processes_that_meet_a_damaged_index_make_it_once(source, tmp_path):
    index = tmp_path / "index"
    right = content(source, index)
    (folder_of(index) / "ids.npy").write_bytes(b"\x93NUMPY")
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        assert list(pool.map(_open, [(source, index)] * 3)) == [right] * 3


def _killed(source: Path, index: Path) -> None:
    def build(path, writer):
        writer.add({"half": 1})
        os.kill(os.getpid(), signal.SIGKILL)

    open_records(source, index, kind="list", build=build)


def test_what_a_killed_process_left_is_removed(tmp_path):
    source, index = tmp_path / "b.json", tmp_path / "index"
    source.write_text('[{"a": 1}, {"a": 2}]')
    process = get_context("fork").Process(target=_killed, args=(source, index))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list(index.glob(".list-*.tmp"))
    read = open_records(source, index, kind="list", build=index_list(lambda record, name: record))
    assert list(read) == [{"a": 1}, {"a": 2}] and not list(index.glob(".list-*.tmp"))
