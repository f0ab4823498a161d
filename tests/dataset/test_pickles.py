"""Pickles: plain data is read, anything else is refused by name and never run."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from dataset.readers.pickles import read_pickle
from utils.errors import DataError

PLAIN = [{"ref_id": 3, "ann_id": [-1], "sent": "the dög, 犬", "box": (1.5, None, True), "raw": b"\xff"}]
SCALARS = [np.int64(7), np.uint8(8), np.float32(0.5), np.bool_(True), np.str_("犬")]


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data(tmp_path, protocol):
    assert read_pickle(write(tmp_path / "a.p", pickle.dumps(PLAIN, protocol))) == PLAIN


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_numpy_scalars(tmp_path, protocol):
    read = read_pickle(write(tmp_path / "a.p", pickle.dumps(SCALARS, protocol)))
    assert read == SCALARS and [type(value) for value in read] == [type(value) for value in SCALARS]


def test_numpy_scalars_under_their_older_name(tmp_path):
    content = pickle.dumps(SCALARS, 2).replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy.core.multiarray" in content
    assert read_pickle(write(tmp_path / "a.p", content)) == SCALARS


def test_strings_of_python_2(tmp_path):
    content = b"(lp0\n(dp1\nS'sent'\np2\nS'left vase'\np3\nsS'raw'\np4\nS'caf\\xc3\\xa9'\np5\nsa."
    assert read_pickle(write(tmp_path / "a.p", content)) == [{"sent": "left vase", "raw": "café"}]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_call_is_refused_by_name_and_not_run(tmp_path, protocol):
    trace = tmp_path / "trace"
    content = pickle.dumps([{"ref_id": Call(os.system, f"touch {trace}")}], protocol)
    with pytest.raises(DataError, match=rf"a\.p: this pickle holds {os.system.__module__}\.system and was refused"):
        read_pickle(write(tmp_path / "a.p", content))
    assert not trace.exists()
    pickle.loads(content)
    assert trace.exists()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"(S'1'\nibuiltins\neval\n.", "builtins.eval"),
        (b"c__builtin__\neval\n(S'1'\ntR.", "__builtin__.eval"),
        (pickle.dumps(np.array([1, None], dtype=object), 2), "multiarray._reconstruct"),
        (pickle.dumps(Path("a"), 4), "PurePosixPath|PosixPath"),
    ],
)
def test_other_globals_are_refused_by_name(tmp_path, content, name):
    with pytest.raises(DataError, match=rf"this pickle holds \S*({name}) and was refused; only lists"):
        read_pickle(write(tmp_path / "a.p", content))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_truncation_is_damage(tmp_path, protocol):
    content = pickle.dumps([{"ref_id": 1, "sent": "left vase", "box": 0.5}], protocol)
    for length in range(1, len(content)):
        with pytest.raises(DataError, match="this pickle is damaged"):
            read_pickle(write(tmp_path / "a.p", content[:length]))


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html>", b"\x80\xff"])
def test_other_files_are_damage(tmp_path, content):
    with pytest.raises(DataError, match=r"a\.p: this pickle is damaged .* fetch it again"):
        read_pickle(write(tmp_path / "a.p", content))


def test_empty_and_missing(tmp_path):
    with pytest.raises(DataError, match=r"a\.p: the file is empty"):
        read_pickle(write(tmp_path / "a.p", b""))
    with pytest.raises(DataError, match=r"b\.p: the file does not exist"):
        read_pickle(tmp_path / "b.p")


def test_a_pipe_or_folder_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.p")
    for name, what in (("pipe.p", "a named pipe"), ("", "a folder")):
        with pytest.raises(DataError, match=f"it is {what}"):
            read_pickle(tmp_path / name)
