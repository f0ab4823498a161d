"""Concurrent users of the page on this machine: `python -m benchmarks.users`.

Each has an image of its own and asks its questions in turn, through the page's queue as a browser does; every answer is
compared with that of a predictor without a page. Ends by itself after `--seconds`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np

from anchorseg import AnchorSegPredictor
from anchorseg.inference.answer import Answer
from benchmarks.page_server import served_page
from dataset.drawn.objects import SceneObject
from dataset.drawn.writer import make_scene
from utils.pictures import save_picture

SEED = 11
LEAST_IOU = 0.99


@dataclass(frozen=True, kw_only=True)
class Script:
    """What one user does: an image, questions that each follow the one before it, and the right answers."""

    image: Path
    questions: tuple[str, ...]
    answers: tuple[Answer, ...]


@dataclass(kw_only=True)
class Tally:
    """What all users met with; threads add to it."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    mixed_up: list[str] = field(default_factory=list)


def questions_about(objects: Sequence[SceneObject]) -> tuple[str, ...]:
    """A question and two that follow it."""
    names = [f"the {item.colour} {item.kind}" for item in objects]
    return (f"Where is {names[0]} in the picture?", f"{names[-1]}", "Which one is the highest of all?")


def scripts_of(count: int, folder: Path) -> list[Script]:
    """A script for each user, answered by a predictor."""
    predictor = AnchorSegPredictor.from_pretrained("miniature", device="cpu")
    found = []
    for number in range(count):
        scene, _ = make_scene(SEED, "test", number)
        image = folder / f"{number}.png"
        save_picture(image, scene.image)
        session = predictor.session(image)
        questions = questions_about(scene.objects)
        answers: list[Answer] = []
        for question in questions:
            answers.append(session.predict(question, after=answers[-1] if answers else None))
        found.append(Script(image=image, questions=questions, answers=tuple(answers)))
    return found


def use(address: str, script: Script, until: float, tally: Tally, start: threading.Barrier) -> None:
    """Go through a script again and again until a time."""
    from gradio_client import Client

    client = Client(address, verbose=False, download_files=False, analytics_enabled=False)
    start.wait()
    while time.monotonic() < until:
        for number, (question, expected) in enumerate(zip(script.questions, script.answers, strict=True)):
            if time.monotonic() >= until:
                return
            began = time.monotonic()
            try:
                shown = _ask(client, script.image, question, follow=number > 0)
            except Exception as error:  # whatever a user meets with is counted
                tally.errors.append(f"{question}: {error!r}")
                break
            tally.seconds.append(time.monotonic() - began)
            if wrong := difference(shown, expected):
                tally.mixed_up.append(f"{script.image.name}: {question}: {wrong}")


def _ask(client: Any, image: Path, question: str, *, follow: bool) -> dict[str, Any]:
    from gradio_client import handle_file

    shown = client.predict(handle_file(image), question, "auto", api_name="/follow_up" if follow else "/ask")
    picture, results = _fetched(shown[1]), _fetched(shown[8]["value"])
    if not picture:
        raise ValueError("there is no picture")
    return {"written": shown[5], "coco": json.loads(results) if results else []}


def _fetched(file: dict[str, Any] | None) -> bytes:
    """A file of the page, as a browser fetches it."""
    if file is None:
        return b""
    with urlopen(file["url"], timeout=60) as answer:
        return bytes(answer.read())


def difference(shown: dict[str, Any], expected: Answer) -> str:
    """How an answer differs from the right one; empty where it does not."""
    from pycocotools import mask as coco_mask

    if shown["written"] != expected.text:
        return f"{shown['written']!r}, not {expected.text!r}"
    masks = [coco_mask.decode(item["segmentation"]).astype(bool) for item in shown["coco"]]
    if len(masks) != len(expected.targets):
        return f"{len(masks)} targets, not {len(expected.targets)}"
    for mask, target in zip(masks, expected.targets, strict=True):
        if mask.shape != target.mask.shape:
            return f"a mask of {mask.shape}, not {target.mask.shape}"
        if np.count_nonzero(mask & target.mask) < LEAST_IOU * np.count_nonzero(mask | target.mask):
            return "another mask"
    return ""


def measure(users: int, seconds: float) -> Tally:
    """Let users ask at the same time for some seconds."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scripts = scripts_of(users, folder)
        with served_page(folder / "page") as page:
            start = threading.Barrier(users)
            until = time.monotonic() + seconds
            threads = [
                threading.Thread(target=use, args=(page.address, script, until, tally, start), daemon=True)
                for script in scripts
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(seconds + 120)
            tally.errors += ["a user has not come to an end" for thread in threads if thread.is_alive()]
    return tally


def main() -> None:
    """Measure, print; exit status 1 where there was an error or a mixed-up answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    tally = measure(arguments.users, arguments.seconds)
    print(f"{arguments.users} users, {arguments.seconds:g} s: {len(tally.seconds)} answers")
    print(f"errors: {len(tally.errors)}  mixed up: {len(tally.mixed_up)}")
    for sentence in (*tally.errors[:5], *tally.mixed_up[:5]):
        print(f"  {sentence}")
    if tally.seconds:
        shares = {name: np.percentile(tally.seconds, share) for name, share in (("p50", 50), ("p95", 95), ("max", 100))}
        print("seconds to an answer: " + "  ".join(f"{name} {value:.2f}" for name, value in shares.items()))
    raise SystemExit(bool(tally.errors or tally.mixed_up or not tally.seconds))


if __name__ == "__main__":
    main()
