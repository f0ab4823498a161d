"""The quick start behind scripts/quickstart.sh: draw scenes, train, evaluate, merge, evaluate again, draw pictures."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from scripts.quickstart_page import write_page
from utils.errors import OutputExistsError, exit_on_error
from utils.files import write_json
from utils.waiting import wait_without_spinning

SCENES = {"train": 3000, "val": 60, "test": 300}
SCENE_SEED = 0
PICTURES = 24
MARK = ".quickstart"


class MemoryWatch(threading.Thread):
    """Peak memory of this process and its children together, in bytes; what they share counts once, on Linux."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Sample once a second until stopped."""
        while not self._stop_asked.wait(1.0):
            self.peak = max(self.peak, memory_in_use())

    def finish(self) -> int:
        """Stop and give the peak."""
        self._stop_asked.set()
        self.join()
        return self.peak


def memory_in_use() -> int:
    """Of this process and its children, in bytes: proportional where the system tells, otherwise resident."""
    process = psutil.Process()
    total = 0
    for part in [process, *process.children(recursive=True)]:
        try:
            used = part.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        total += getattr(used, "pss", used.rss)
    return total


def call(title: str, *command: str) -> float:
    """Run a command, show it, and return its seconds."""
    print(f"\n=== {title}\n$ {' '.join(command)}", flush=True)
    began = time.perf_counter()
    status = subprocess.run(command, check=False).returncode
    if status:
        raise SystemExit(status)
    return time.perf_counter() - began


def results(folder: Path) -> dict[str, Any]:
    """Results by protocol from a results.json."""
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found["benchmarks"]["ReasonSeg|test"]


def scores(entry: dict[str, Any]) -> dict[str, Any]:
    """gIoU and cIoU of a result, and their intervals."""
    return {key: entry[key] for key in ("giou", "ciou", "intervals")}


def by_kind(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean IoU and its 95 % interval by kind of question, which the annotations say."""
    from anchorseg.evaluation.intervals import mean_interval

    values: dict[str, list[float]] = {}
    for row in rows:
        kind = json.loads(Path(row["record"]).read_text(encoding="utf-8"))["query_kind"]
        values.setdefault(kind, []).append(row["iou"])
    intervals = {kind: (mean_interval(found), len(found)) for kind, found in sorted(values.items())}
    return {
        kind: {"giou": mean, "low": low, "high": high, "questions": count}
        for kind, ((mean, low, high), count) in intervals.items()
    }


def make_anew(root: Path) -> None:
    """An empty folder with this script's mark; what it made before is removed.

    Raises:
        OutputExistsError: if there is something that it did not make.
    """
    if root.is_symlink() or (root.exists() and not root.is_dir()):
        raise OutputExistsError(f"{root} is no folder; give a new one")
    if root.is_dir() and any(root.iterdir()):
        if not (root / MARK).is_file():
            raise OutputExistsError(
                f"{root} holds files that the quick start did not make (there is no {MARK} in it), so nothing in it is "
                "touched; give a new folder"
            )
        shutil.rmtree(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / MARK).write_text("Made by scripts/quickstart.sh, which removes this folder when it runs again.\n")


def main() -> None:
    """Do everything, then write and print the summary and the page."""
    parser = argparse.ArgumentParser(prog="bash scripts/quickstart.sh", description=__doc__)
    parser.add_argument("folder", nargs="?", default="runs/quickstart", help="run folder, made anew each time")
    root = Path(parser.parse_args().folder)
    make_anew(root)
    wait_without_spinning()  # for all that is called
    threads = os.environ.get("OMP_NUM_THREADS", "one for each core")
    print(f"threads: {threads}; those that wait sleep (OMP_WAIT_POLICY {os.environ.get('OMP_WAIT_POLICY', 'not set')})")
    watch = MemoryWatch()
    watch.start()
    seconds = make(root)
    summary = {**read_scores(root), **seconds, "peak_rss_gb": round(watch.finish() / 1e9, 2)}
    write_json(root / "summary.json", summary)
    show(summary)
    print(
        f"look at: {write_page(root, summary, root / 'pictures')} (a page with all of this), {root}/eval/results.json "
        f"(every sample), {root}/model (model folder), {root}/tensorboard (curves), {root}/summary.json (these figures)"
    )


def make(root: Path) -> dict[str, float]:
    """First answers, scenes, training, merging, both evaluations: the seconds that are worth stating."""
    python, data, model = sys.executable, root / "scenes", root / "model"
    counts = [word for split, count in SCENES.items() for word in (f"--{split}", str(count))]
    first_seconds = call(
        "first answers of the miniature that comes with the project", python, "-m", "scripts.first_answer",
        str(root / "first"),
    )  # fmt: skip
    call("draw scenes", python, "-m", "scripts.make_scenes", str(data), *counts, "--seed", str(SCENE_SEED))
    # DeepSpeed compiles its communication on CPUs at the first start, two files of 1.6 GB each if at once.
    os.environ.setdefault("MAX_JOBS", "1")
    train_seconds = call(
        "train", "deepspeed", "--num_accelerators", "1", "train_ds.py", "--preset", "tiny", "--version", "tiny-llava",
        "--vision_pretrained", "tiny-sam", "--cache_features", str(root / "features"), "--dataset_dir", str(data),
        "--log_base_dir", str(root.parent), "--exp_name", root.name,
    )  # fmt: skip
    call("merge", python, "merge_lora_weights.py", "--run", str(root), "--save_path", str(model))
    evaluate("the merged model", str(model), data, root / "eval", "--vis_save_path", str(root / "pictures"),
             "--vis_limit", str(PICTURES))  # fmt: skip
    evaluate("the miniature that comes with the project", "miniature", data, root / "eval_shipped")
    call(
        "compare: A is the shipped miniature, B the model trained here", python, "-m", "scripts.compare",
        str(root / "eval_shipped" / "results.json"), str(root / "eval" / "results.json"),
    )  # fmt: skip
    return {"first_answer_seconds": round(first_seconds, 1), "train_seconds": round(train_seconds, 1)}


def read_scores(root: Path) -> dict[str, Any]:
    """Scores and the proof of the merging, for the summary."""
    found, shipped = results(root / "eval"), results(root / "eval_shipped")
    merge = json.loads((root / "model" / "merge.json").read_text(encoding="utf-8"))
    return {
        "forced": scores(found["forced"]),
        "generate": scores(found["generate"]),
        "by_kind": by_kind(found["forced"]["rows"]),
        "shipped": scores(shipped["forced"]),
        "merged_max_abs_diff": merge["max_abs_difference"],
        "num_eval_samples": found["forced"]["num_samples"],
    }


def evaluate(what: str, version: str, data: Path, output: Path, *flags: str) -> None:
    """Evaluate a model on unseen scenes and wordings, forced and generated."""
    call(
        f"evaluate {what} on unseen scenes and wordings", sys.executable, "eval_reasonseg.py", "--version", version,
        "--dataset_dir", str(data), "--val_dataset", "ReasonSeg|test", "--output_dir", str(output), "--workers", "0",
        *flags,
    )  # fmt: skip


def show(summary: dict[str, Any]) -> None:
    """Print the figures."""
    print("\n=== summary")
    for name in ("forced", "generate", "shipped"):
        low, high = summary[name]["intervals"]["giou"]
        print(
            f"{name:<12} gIoU {summary[name]['giou']:.4f} ({low:.3f} to {high:.3f})  cIoU {summary[name]['ciou']:.4f}"
        )
    for kind, row in summary["by_kind"].items():
        print(
            f"{kind:<12} gIoU {row['giou']:.3f} ({row['low']:.3f} to {row['high']:.3f}), {row['questions']} questions"
        )
    print(
        f"{summary['num_eval_samples']} unseen scenes; first answers after {summary['first_answer_seconds']} s; "
        f"trained in {summary['train_seconds']} s; peak memory {summary['peak_rss_gb']} GB; merged and unmerged differ "
        f"by at most {summary['merged_max_abs_diff']:.1e}"
    )


if __name__ == "__main__":
    with exit_on_error():
        main()
