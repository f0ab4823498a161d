"""`anchorseg predict` over many images: memory while it runs, a kill in the middle, and time beside single questions.

`python -m benchmarks.predict_many FOLDER --images 1000` draws scenes, asks three questions about each, and prints what
came of it as JSON. The same is done again with a kill in the middle and `--resume`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from anchorseg import AnchorSegPredictor
from dataset.drawn.writer import make_scene
from utils.errors import exit_on_error
from utils.files import write_text
from utils.pictures import save_picture
from utils.waiting import wait_without_spinning

QUESTIONS, SEED, TABLE = 3, 3, "table.jsonl"
MORE = ("the largest object", "Where is the green object in the picture?", "Which object is highest up?")
"""For scenes that were drawn for fewer."""
Asked = list[tuple[str, list[str]]]
"""Path of each image, and its questions."""


def draw(folder: Path, count: int) -> Asked:
    """Write drawn scenes, and a table with three questions about each."""
    asked: Asked = []
    for number in range(count):
        scene, queries = make_scene(SEED, "test", number)
        path = folder / "images" / f"{number:05d}.png"
        if not path.exists():
            save_picture(path, scene.image)
        by_turn = zip(*(query.texts for query in queries), strict=False)
        texts = dict.fromkeys([*(text for turn in by_turn for text in turn), *MORE])
        asked.append((str(path), list(texts)[:QUESTIONS]))
    rows = [{"image": f"images/{Path(path).name}", "questions": questions} for path, questions in asked]
    write_text(folder / TABLE, "".join(json.dumps(row) + "\n" for row in rows))
    return asked


def command(folder: Path, out: Path, model: str, *flags: str) -> list[str]:
    """The command line of a run."""
    return [sys.executable, "-m", "scripts.predict", str(folder / TABLE), "--model", model,
            "--out", str(out), "--device", "cpu", *flags]  # fmt: skip


def watched(run: Sequence[str], out: Path, stop_at: int | None = None) -> tuple[float, list[tuple[int, int]]]:
    """Run a command: seconds, and bytes of memory with the number of lines written by then.

    Args:
        run: the command.
        out: folder whose answers.jsonl grows.
        stop_at: lines at which it is killed.
    """
    seen: list[tuple[int, int]] = []
    started = time.perf_counter()
    lines, offset, path = 0, 0, out / "answers.jsonl"
    with subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        process = psutil.Process(running.pid)
        while running.poll() is None:
            if path.exists():
                with open(path, "rb") as file:
                    file.seek(offset)
                    new = file.read()
                lines, offset = lines + new.count(b"\n"), offset + len(new)
                try:
                    seen.append((lines, process.memory_info().rss))
                except psutil.Error:
                    break
            if stop_at is not None and lines >= stop_at:
                running.kill()
            time.sleep(0.2)
    return time.perf_counter() - started, seen


def of_tenth(seen: Sequence[tuple[int, int]], lines: int, tenth: int) -> float:
    """Mean memory in MB during one tenth of a run, counted from 0."""
    inside = [memory for count, memory in seen if lines * tenth / 10 <= count < lines * (tenth + 1) / 10]
    return float(np.mean(inside)) / 1e6 if inside else float("nan")


def single_seconds(asked: Asked, model: str) -> tuple[float, float]:
    """Seconds of an image with its questions: one call for each question and image set anew, and read together."""
    predictor = AnchorSegPredictor.from_pretrained(model, device="cpu")
    started = time.perf_counter()
    for path, queries in asked:
        for query in queries:
            predictor.set_image(path)
            predictor.predict(query)
    single = time.perf_counter() - started
    started = time.perf_counter()
    for _ in predictor.predict_images(asked):
        pass
    return single / len(asked), (time.perf_counter() - started) / len(asked)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw, run, kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for images and answers")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--singles", type=int, default=50, help="images of the comparison with single questions")
    parser.add_argument("--model", default="miniature")
    arguments = parser.parse_args(argv)
    wait_without_spinning()
    folder, model = arguments.folder, arguments.model
    asked = draw(folder, arguments.images)
    lines = sum(len(questions) for _, questions in asked)
    whole, stopped = folder / "whole", folder / "stopped"
    seconds, seen = watched(command(folder, whole, model), whole)
    watched(command(folder, stopped, model), stopped, stop_at=lines // 2)
    left = (stopped / "answers.jsonl").read_bytes().count(b"\n")
    resumed, _ = watched(command(folder, stopped, model, "--resume"), stopped)
    names = ("answers.jsonl", "results.json", "images.json")
    single, together = single_seconds(asked[: arguments.singles], model)
    found = {
        "images": len(asked),
        "questions": lines,
        "seconds": seconds,
        "memory_mb_by_tenth": [of_tenth(seen, lines, tenth) for tenth in range(10)],
        "last_by_second_tenth": of_tenth(seen, lines, 9) / of_tenth(seen, lines, 1),
        "lines_at_the_kill": left,
        "seconds_resumed": resumed,
        "equal_after_resume": all((whole / name).read_bytes() == (stopped / name).read_bytes() for name in names),
        "seconds_an_image_one_by_one": single,
        "seconds_an_image_together": together,
        "ratio": together / single,
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    with exit_on_error():
        main()
