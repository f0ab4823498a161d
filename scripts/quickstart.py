"""The quick start behind scripts/quickstart.sh: draw scenes, train, evaluate, merge, evaluate again, draw pictures."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from utils.errors import OutputExistsError, exit_on_error
from utils.files import write_json
from utils.waiting import wait_without_spinning

SCENES = {"train": 3000, "val": 60, "test": 240}
SCENE_SEED = 0
PICTURES = 24
MARK = ".quickstart"


class MemoryWatch(threading.Thread):
    """Peak resident memory of this process and its children together, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Sample once a second until stopped."""
        while not self._stop_asked.wait(1.0):
            self.peak = max(self.peak, _resident())

    def finish(self) -> int:
        """Stop and give the peak."""
        self._stop_asked.set()
        self.join()
        return self.peak


def _resident() -> int:
    process = psutil.Process()
    total = 0
    for part in [process, *process.children(recursive=True)]:
        try:
            total += part.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def call(title: str, *command: str) -> float:
    """Run a command, show it, and return its seconds."""
    print(f"\n=== {title}\n$ {' '.join(command)}", flush=True)
    began = time.perf_counter()
    status = subprocess.run(command, check=False).returncode
    if status:
        raise SystemExit(status)
    return time.perf_counter() - began


def scores(folder: Path) -> dict[str, dict[str, float]]:
    """Scores by protocol from a results.json."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))["benchmarks"]["ReasonSeg|test"]
    return {name: {key: result[key] for key in ("giou", "ciou", "num_samples")} for name, result in results.items()}


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
    """Do everything, then write and print the summary."""
    parser = argparse.ArgumentParser(prog="bash scripts/quickstart.sh", description=__doc__)
    parser.add_argument("folder", nargs="?", default="runs/quickstart", help="run folder, made anew each time")
    root = Path(parser.parse_args().folder)
    make_anew(root)
    wait_without_spinning()  # for all that is called
    data, model, evaluation, pictures = root / "scenes", root / "model", root / "eval", root / "pictures"
    watch = MemoryWatch()
    watch.start()
    counts = [word for split, count in SCENES.items() for word in (f"--{split}", str(count))]
    python = sys.executable
    call("draw scenes", python, "-m", "scripts.make_scenes", str(data), *counts, "--seed", str(SCENE_SEED))
    train_seconds = call(
        "train", "deepspeed", "--num_accelerators", "1", "train_ds.py", "--preset", "tiny",
        "--dataset_dir", str(data), "--log_base_dir", str(root.parent), "--exp_name", root.name,
    )  # fmt: skip
    call("merge", python, "merge_lora_weights.py", "--run", str(root), "--save_path", str(model))
    call(
        "evaluate the merged model on unseen scenes and wordings", python, "eval_reasonseg.py", "--version", str(model),
        "--dataset_dir", str(data), "--val_dataset", "ReasonSeg|test", "--output_dir", str(evaluation),
        "--vis_save_path", str(pictures), "--vis_limit", str(PICTURES),
    )  # fmt: skip
    found = scores(evaluation)
    merge = json.loads((model / "merge.json").read_text(encoding="utf-8"))
    summary = {
        "forced": {key: found["forced"][key] for key in ("giou", "ciou")},
        "generate": {key: found["generate"][key] for key in ("giou", "ciou")},
        "merged_max_abs_diff": merge["max_abs_difference"],
        "train_seconds": round(train_seconds, 1),
        "peak_rss_gb": round(watch.finish() / 1e9, 2),
        "num_eval_samples": found["forced"]["num_samples"],
    }
    write_json(root / "summary.json", summary)
    print("\n=== summary")
    for protocol in ("forced", "generate"):
        print(f"{protocol:<9} gIoU {summary[protocol]['giou']:.4f}  cIoU {summary[protocol]['ciou']:.4f}")
    print(
        f"{summary['num_eval_samples']} unseen scenes; trained in {summary['train_seconds']} s; peak memory "
        f"{summary['peak_rss_gb']} GB; merged and unmerged differ by at most {summary['merged_max_abs_diff']:.1e}\n"
        f"look at: {pictures} (pictures), {evaluation}/results.json (every sample), {model} (model folder), "
        f"{root}/tensorboard (curves), {root}/summary.json (these figures)"
    )


if __name__ == "__main__":
    with exit_on_error():
        main()
