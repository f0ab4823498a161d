"""Predictions on disk: the masks and answers of an evaluation, to be scored later or by others, a JSON line a question.

```text
{"benchmark": "ReasonSeg|val", "protocol": "generate", "index": 0, "question": 0, "record": "a.json",
 "query": "the cup", "answer": "It is <SEG>.", "found": true, "cut": false,
 "masks": [{"size": [480, 640], "counts": "..."}]}
```

`masks` are COCO run lengths; `anchorseg.evaluation.given` reads these files and what other systems write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from anchorseg.evaluation.evaluator import Prediction
from dataset.run_lengths import encode_runs
from utils.distributed import all_gather_objects, is_main
from utils.errors import OutputError
from utils.files import write_text

Made = TypeVar("Made")


def file_name(text: str) -> str:
    """The name of a benchmark or record as a part of a file's."""
    return re.sub(r"[^-.+\w]+", "_", text)


def predictions_file(folder: Path, benchmark: str, protocol: str) -> Path:
    """Where the predictions of one benchmark under one protocol are."""
    return folder / f"{file_name(benchmark)}.{protocol}.jsonl"


def written(path: Path, write: Callable[[], Made]) -> Made:
    """What writing a file gives.

    Raises:
        OutputError: if the disk refuses it.
    """
    try:
        return write()
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); make room, or give another folder") from error


class Recorder:
    """Collects a rank's predictions of one benchmark under one protocol as lines, and writes those of all as one file.

    Args:
        benchmark: its name.
        protocol: how it is asked.
    """

    def __init__(self, benchmark: str, protocol: str) -> None:
        self._head = {"benchmark": benchmark, "protocol": protocol}
        self._lines: list[tuple[int, int, str]] = []

    def __call__(self, prediction: Prediction) -> None:
        """Keep one prediction."""
        row, reply = prediction.row, prediction.reply
        content = {
            **self._head,
            "index": row.index,
            "question": row.question,
            "record": Path(row.record).name,
            "query": row.query,
            "answer": reply.answer,
            "found": reply.found,
            "cut": reply.cut,
            "masks": [encode_runs(mask) for mask in reply.masks],
        }
        self._lines.append((row.index, row.question, json.dumps(content, ensure_ascii=False)))

    def write(self, folder: Path) -> Path:
        """Write the predictions of all ranks, in order; every rank must call it.

        Raises:
            OutputError: if the file cannot be written.
        """
        path = predictions_file(folder, self._head["benchmark"], self._head["protocol"])
        parts = all_gather_objects(self._lines)
        if is_main():
            lines = sorted(line for part in parts for line in part)
            written(path, lambda: write_text(path, "".join(f"{text}\n" for _, _, text in lines)))
        return path
