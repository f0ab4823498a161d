"""A folder of answers: JSON lines that grow, pictures and masks, and COCO files made of the lines at the end.

`answers.jsonl` has a line for each question, in the order of the images, or one with `error` for an image that could
not be used. It is the record of what is done: pictures and masks of a line are written before it. `images.json` and
`results.json` are COCO's, read by pycocotools as `COCO("images.json").loadRes("results.json")`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from anchorseg.inference.answer import Answer
from anchorseg.inference.export import mask_picture
from utils.errors import OutputExistsError
from utils.files import read_json, write_bytes, write_json
from utils.pictures import save_picture
from utils.shown import shown

LINES, SETTINGS, IMAGES, RESULTS = "answers.jsonl", "predict.json", "images.json", "results.json"
INPUTS = "inputs"
"""The setting that tells images and questions."""
_CATEGORY = 1
_NEEDED = {"image", "height", "width", "query", "targets"}
_LONGEST_NAME = 120
"""Bytes of an image's name in the names of its pictures, which file systems bound."""


class AnswerFolder:
    """Where answers about many images go; it can be continued.

    Args:
        folder: that is there.
        settings: what the answers depend on, as JSON holds it; `INPUTS` tells images and questions.
        resume: go on where an earlier start with the same settings stopped.
        overlays: write a picture of each question.
        masks: write a PNG of each target.

    Raises:
        OutputExistsError: if the folder holds answers and `resume` is off, or they depend on other settings, or are
            damaged.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], *, resume: bool, overlays: bool = True, masks: bool = True
    ) -> None:
        self.folder = folder
        self._overlays, self._masks = overlays, masks
        self._lines = folder / LINES
        if self._lines.exists() or (folder / SETTINGS).exists():
            if not resume:
                raise OutputExistsError(f"{folder} holds answers; pass --resume to go on, or give another --out")
            self._refuse_other(settings)
        write_json(folder / SETTINGS, settings)
        self._done = self._whole_lines()

    def _refuse_other(self, settings: Mapping[str, Any]) -> None:
        path = self.folder / SETTINGS
        try:
            before = read_json(path, fail=_damaged, kind=dict)
        except FileNotFoundError:
            raise _damaged(path, "it is missing") from None
        for name in sorted({*before, *settings}):
            if name == INPUTS and before.get(name) != settings.get(name):
                raise OutputExistsError(f"{self.folder} holds answers to other images or questions; give another --out")
            if before.get(name) != settings.get(name):
                raise OutputExistsError(
                    f"{self.folder} holds answers with {name} {shown(before.get(name))}, and now it is "
                    f"{shown(settings.get(name))}; give another --out"
                )

    def _whole_lines(self) -> list[tuple[int, bool]]:
        """Of each line the number of its image, and whether it is an error; what a kill left of a last one is cut."""
        if not self._lines.exists():
            return []
        found, end = [], 0
        with open(self._lines, "rb+") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    content = json.loads(line)
                    if "error" not in content and not content.keys() >= _NEEDED:
                        raise KeyError(_NEEDED)
                    found.append((int(content["image_id"]) - 1, "error" in content))
                except (ValueError, KeyError, TypeError):
                    raise _damaged(self._lines, f"line {len(found) + 1} is damaged") from None
                end += len(line)
            file.truncate(end)
        return found

    def go_on(self, questions: Sequence[int], group: int) -> int:
        """Keep the lines of whole groups of images; the number of the first image that is still to be answered.

        Images that are answered together are answered together again, for sums depend on them.

        Args:
            questions: how many there are about each image.
            group: how many images are answered together.
        """
        whole = count = 0
        for wanted in questions:
            errors = [error for image, error in self._done[count : count + wanted] if image == whole]
            lines = 1 if errors[:1] == [True] else wanted
            if len(errors) < lines:
                break
            whole, count = whole + 1, count + lines
        start = whole if whole == len(questions) else whole // group * group
        kept = sum(image < start for image, _ in self._done)
        with open(self._lines, "ab+") as file:
            file.seek(0)
            file.truncate(sum(len(file.readline()) for _ in range(kept)))
        return start

    def pictures(self, image: int, path: str, answers: Sequence[Answer]) -> None:
        """Write pictures and masks of the answers about image number `image`."""
        stem = _text(Path(path).stem).encode("utf-8")[:_LONGEST_NAME].decode("utf-8", "ignore")
        for question, answer in enumerate(answers, 1):
            name = f"{image + 1:06d}_{stem}_{question}"
            if self._overlays:
                save_picture(self.folder / "overlays" / f"{name}.png", answer.overlay())
            if self._masks:
                for number, target in enumerate(answer.targets, 1):
                    save_picture(self.folder / "masks" / f"{name}_{number}.png", mask_picture(target.mask))

    def add(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Append lines at once, and see them on the disk."""
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        with open(self._lines, "ab") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> tuple[int, int, int]:
        """Write the COCO files; how many questions were answered, how many targets found, how many images failed."""
        images: dict[int, dict[str, Any]] = {}
        results: list[bytes] = []
        questions = failed = 0
        for line in self._read():
            if "error" in line:
                failed += 1
                continue
            questions += 1
            number = line["image_id"]
            size = {"height": line["height"], "width": line["width"]}
            images[number] = {"id": number, "file_name": line["image"], **size}
            for target in line["targets"]:
                del target["bbox"]  # where there is one, pycocotools takes its area for the mask's
                entry = {"image_id": number, "category_id": _CATEGORY, **target, "question": line["query"]}
                results.append(json.dumps(entry, ensure_ascii=False).encode("utf-8"))
        categories = [{"id": _CATEGORY, "name": "target"}]
        write_json(self.folder / IMAGES, {"images": list(images.values()), "annotations": [], "categories": categories})
        write_bytes(self.folder / RESULTS, b"[\n" + b",\n".join(results) + b"\n]\n")
        return questions, len(results), failed

    def _read(self) -> Iterator[dict[str, Any]]:
        if self._lines.exists():
            with open(self._lines, "rb") as file:
                yield from map(json.loads, file)


def line_of(image: int, path: str, question: int, answer: Answer) -> dict[str, Any]:
    """The line of an answer to question number `question` about image number `image`."""
    height, width = answer.image.shape[:2]
    place = {"image_id": image + 1, "image": _text(path), "height": height, "width": width, "question": question}
    return {**place, **answer.to_dict()}


def line_of_error(image: int, path: str, error: Exception) -> dict[str, Any]:
    """The line of an image that could not be used."""
    return {"image_id": image + 1, "image": _text(path), "error": _text(str(error))}


def _text(path: str) -> str:
    """A path as text: names of files may hold bytes that are none."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _damaged(path: Path, reason: str) -> OutputExistsError:
    return OutputExistsError(f"{path}: {reason}; move it away, or give another --out")
