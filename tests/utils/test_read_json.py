"""Reading JSON: strict, and one sentence for whatever else a file may be."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from utils.errors import CheckpointError, DataError
from utils.files import read_bytes, read_json


def _file(folder: Path, content: str | bytes) -> Path:
    path = folder / "a.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_accepted_encodings(tmp_path: Path, encoding: str) -> None:
    value = {"a": [1, 2.5, None, True, "é 树 😀"], "ü": {}}
    assert read_json(_file(tmp_path, json.dumps(value, ensure_ascii=False).encode(encoding))) == value


def test_accepted_values(tmp_path: Path) -> None:
    content = r'{"a": -9223372036854775808, "b": 18446744073709551615, "c": 1e308, "d": "\ud83d\ude00", "c": 2}'
    assert read_json(_file(tmp_path, content)) == {"a": -(2**63), "b": 2**64 - 1, "c": 2, "d": "😀"}
    assert read_json(_file(tmp_path, "[" * 100 + "]" * 100))[0][0] is not None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "an empty file"),
        (" \n\t ", "an empty file"),
        (b"\0" * 4096, "zero bytes alone"),
        ("{", "not valid JSON"),
        ("{} {}", "not valid JSON"),
        ("{'a': 1}", "not valid JSON"),
        ("<!DOCTYPE html><html></html>", "a web page"),
        (b"\xef\xbb\xbf\n <html>", "a web page"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS pointer"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"\x1f\x8b\x08rest", "a gzip archive"),
        (b"\x89PNG\r\n\x1a\nrest", "a PNG image"),
        (bytes(range(256)), "UTF-16 or UTF-32 without"),
        ("[1]".encode("utf-16-le"), "UTF-16 or UTF-32 without"),
        ("[1]".encode("utf-16-be"), "UTF-16 or UTF-32 without"),
        ("[1]".encode("utf-32"), "UTF-32; save it as UTF-8"),
        ('["a"]'.encode("utf-16")[:-1], "damaged"),
        ('["树"]'.encode("gbk"), "not UTF-8 .byte 0xca at position 2.*GBK"),
        ('["дерево"]'.encode("cp1251"), "not UTF-8 .byte 0xe4 at position 2"),
        ('["é"]'.encode("cp1252"), "not UTF-8 .byte 0xe9 at position 2"),
        (b'["\xed\xa0\x80"]', "not UTF-8"),
        (r'["\ud800"]', r"\\ud800, half of a surrogate pair"),
        (r'{"a\uDFFF": 1}', r"\\udfff, half of a surrogate pair"),
        (r'[["\udc00\ud800"]]', r"\\udc00, half of a surrogate pair"),
        ("1" + "0" * 400, "has 401 characters; whole numbers must fit 64 bits"),
        ("-" + "9" * 100_000, "whole numbers must fit 64 bits"),
        ("18446744073709551616", "whole numbers must fit 64 bits"),
        ("1e400", "numbers must be finite"),
        ("-1e999999999999", "numbers must be finite"),
        ("0." + "1" * 1_000_000, "too large or too long"),
        ("[NaN]", "it holds NaN"),
        ("[Infinity]", "it holds Infinity"),
        ('{"a": -Infinity}', "it holds -Infinity"),
        ("[" * 101 + "]" * 101, "more than 100 lists and objects"),
        ("[" * 100_000, "more than 100 lists and objects"),
        ('{"a":' * 100_000, "more than 100 lists and objects"),
        ('[{"":' * 300 + "1" + "}]" * 300, "more than 100 lists and objects"),
    ],
)
def test_refused_contents(tmp_path: Path, content: str | bytes, reason: str) -> None:
    start = time.perf_counter()
    with pytest.raises(DataError, match=reason) as refused:
        read_json(_file(tmp_path, content))
    assert time.perf_counter() - start < 2
    assert refused.value.path == str(tmp_path / "a.json") and "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500 + len(str(tmp_path))


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "link.json").symlink_to(tmp_path / "pipe.json")
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    (tmp_path / "plain").touch()
    for path, found in (
        (tmp_path / "pipe.json", "a named pipe"),
        (tmp_path / "link.json", "a named pipe"),
        (tmp_path, "a folder"),
        (Path("/dev/zero"), "a device"),
        (tmp_path / "loop.json", "cannot be opened"),
        (tmp_path / ("x" * 300), "cannot be opened"),
        (tmp_path / "a\0b", "cannot be opened"),
        (tmp_path / "plain" / "a.json", "cannot be opened"),
    ):
        with pytest.raises(DataError, match=found):
            read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _file(tmp_path, "{}")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(DataError, match="cannot be read"):
        read_bytes(path)


def test_the_caller_chooses_error_and_kind(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a\.json: it is an empty file"):
        read_json(_file(tmp_path, ""), fail=lambda path, reason: CheckpointError(f"{path}: {reason}"))
    with pytest.raises(DataError, match=r"must hold an object but holds \[1\]"):
        read_json(_file(tmp_path, "[1]"), kind=dict)
    assert read_json(_file(tmp_path, "[1]"), kind=list) == [1]


def test_random_bytes_are_read_or_refused(tmp_path: Path) -> None:
    """Changed bytes of a good file: never another kind of error."""
    rng = np.random.default_rng(0)
    good = json.dumps({"a": [[1.5, -2, 1e9], "text\u00e9 \\", None, True], "b": {"c": 12345678}}, ensure_ascii=False)
    refused = 0
    for _ in range(1000):
        data = bytearray(good.encode())
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.choice(np.frombuffer(b'{}[]",:\\0189.-+eEtfn\x00\xff\xed u', np.uint8))
        try:
            read_json(_file(tmp_path, bytes(data)))
        except DataError:
            refused += 1
    assert 100 < refused < 1000
