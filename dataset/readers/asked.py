"""What a user asks about many images: files, folders, patterns, or a table of images and questions."""

from __future__ import annotations

import csv
import glob
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import DataError, SettingsError
from utils.files import read_bytes
from utils.json_text import decode_text, parse_json
from utils.shown import shown

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
TABLE_SUFFIXES = (".csv", ".jsonl")


@dataclass(frozen=True)
class AskedImage:
    """An image file and the questions about it."""

    path: str
    queries: tuple[str, ...]


def asked_images(inputs: Sequence[str], queries: Sequence[str], *, out: str | None = None) -> list[AskedImage]:
    """The images of inputs with the questions about them, each image once, in the order of the inputs.

    Args:
        inputs: image files; folders, whose images are taken with those of their subfolders, by name; patterns such as
            "photos/**/*.jpg"; or one table, a CSV file with the columns `image` and `question`, or JSON lines
            {"image": ..., "question": ...} or {"image": ..., "questions": [...]}, paths relative to it.
        queries: asked about every image; a table has its own and takes none.
        out: folder of the answers, of which nothing is taken; nor is it of hidden folders.

    Raises:
        SettingsError: for an input that is none of these, queries beside a table, or none without one.
        DataError: for a table that cannot be read, naming the line.
    """
    tables = [name for name in inputs if Path(name).suffix.lower() in TABLE_SUFFIXES]
    if tables:
        if len(inputs) > 1 or queries:
            raise SettingsError(f"{tables[0]} is a table with its own questions: give it alone, without --query")
        return _grouped(_rows(Path(tables[0])))
    if not queries:
        raise SettingsError("there is no question; give --query, or a table with the columns image and question")
    if empty := [query for query in queries if not query.strip()]:
        raise SettingsError(f'the query {empty[0]!r} is empty; ask for something, such as "the red cup"')
    paths = dict.fromkeys(path for name in inputs for path in _images(name, None if out is None else Path(out)))
    return [AskedImage(path, tuple(dict.fromkeys(queries))) for path in paths]


def _images(name: str, out: Path | None) -> Iterator[str]:
    """Image files of a file, folder or pattern."""
    path = Path(name)
    if _is(Path.is_dir, path):
        found = sorted(str(file) for file in path.rglob("*") if _is_image(file, path) and not _is_below(file, out))
        if not found:
            raise SettingsError(f"the folder {name} holds no image; looked for {', '.join(IMAGE_SUFFIXES)}")
        yield from found
    elif _is(Path.exists, path) or not glob.has_magic(name):
        yield name  # one that is missing is reported with the other images that cannot be read
    else:
        matching = map(Path, glob.glob(name, recursive=True))
        found = sorted(str(file) for file in matching if _is_image(file) and not _is_below(file, out))
        if not found:
            raise SettingsError(f"no image matches the pattern {name}")
        yield from found


def _is(test: Callable[[Path], bool], path: Path) -> bool:
    """Whether a path is there as something; one that no file can have is not."""
    try:
        return test(path)
    except OSError:
        return False


def _is_image(path: Path, below: Path | None = None) -> bool:
    names = (path if below is None else path.relative_to(below)).parts if below else (path.name,)
    return path.suffix.lower() in IMAGE_SUFFIXES and not any(n.startswith(".") for n in names) and path.is_file()


def _is_below(path: Path, folder: Path | None) -> bool:
    return folder is not None and path.resolve().is_relative_to(folder.resolve())


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """Image and question of every row of a table."""
    try:
        text = decode_text(read_bytes(path, fail=DataError))
    except FileNotFoundError:
        raise DataError(path, "the table does not exist") from None
    except ValueError as error:
        raise DataError(path, f"the table is no text: {error}; write it as UTF-8") from None
    read = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    for line, image, question in read(text, path):
        if not isinstance(image, str) or not image.strip():
            raise DataError(path, f'line {line}: "image" is {shown(image)}; it must be the path of an image')
        if not isinstance(question, str) or not question.strip():
            raise DataError(
                path, f'line {line}: "question" is {shown(question)}; it must be a text that asks something'
            )
        yield str(path.parent / image.strip()), question.strip()


def _csv_rows(text: str, path: Path) -> Iterator[tuple[int, Any, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise DataError(path, f"its first line is no CSV ({error})") from None
    if twice := [name for name in ("image", "question") if names.count(name) > 1]:
        raise DataError(path, f"its first line names the column {twice[0]} twice")
    if missing := [name for name in ("image", "question") if name not in names]:
        raise DataError(path, f"its first line must name the columns image and question; it lacks {missing[0]}")
    reader.fieldnames = names
    try:
        for row in reader:
            if row.get(None):
                raise DataError(path, f"line {reader.line_num} has more fields than the first; quote what has a comma")
            yield reader.line_num, row["image"], row["question"]
    except csv.Error as error:
        raise DataError(path, f"line {reader.line_num} is no CSV ({error})") from None


def _json_rows(text: str, path: Path) -> Iterator[tuple[int, Any, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = parse_json(line.encode("utf-8"))
        except ValueError as error:
            raise DataError(path, f"line {number} is no JSON ({error})") from None
        if not isinstance(entry, dict):
            raise DataError(path, f'line {number} is {shown(entry)}; it must be an object with "image" and "question"')
        questions = entry.get("questions", [entry.get("question")])
        if not isinstance(questions, list) or not questions:
            raise DataError(path, f'line {number}: "questions" is {shown(questions)}; it must be a list of texts')
        for question in questions:
            yield number, entry.get("image"), question


def _grouped(rows: Iterator[tuple[str, str]]) -> list[AskedImage]:
    found: dict[str, dict[str, None]] = {}
    for image, question in rows:
        found.setdefault(image, {})[question] = None
    if not found:
        raise SettingsError("the table has no row; give an image and a question on each line")
    return [AskedImage(path, tuple(questions)) for path, questions in found.items()]
