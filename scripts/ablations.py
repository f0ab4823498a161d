"""The paper's ablations in miniature: `python -m scripts.ablations FOLDER` trains, evaluates and compares them all.

Every row of Tables 4, 5 and 6, the heads of LISA and READ, and the mended objective is trained from the two small
foundation models on drawn scenes, with several seeds; runs of one seed share the data's order and the initial weights.
A run that is finished is not repeated, and one that was stopped goes on. Written are table.md, ablations.png and
summary.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

from scripts.ablation_report import ROWS, Row, write_report
from utils.errors import SettingsError, UserError, exit_on_error
from utils.files import read_json, write_json
from utils.waiting import wait_without_spinning

SCENES = {"train": 3000, "val": 1, "test": 300}
PLAN = "plan.json"


@dataclass(frozen=True)
class Run:
    """One row with one seed, in folders of its own."""

    root: Path
    row: Row
    seed: int
    steps: int

    @property
    def name(self) -> str:
        """Such as `bank_16/seed_2`."""
        return f"{self.row.name}/seed_{self.seed}"

    @property
    def folder(self) -> Path:
        """Of everything that it writes."""
        return self.root / "runs" / self.name

    @property
    def results(self) -> Path:
        """The scores; a run that has them is finished."""
        return self.folder / "results.json"

    def commands(self) -> list[list[str]]:
        """What trains, merges and evaluates it; of a model that is merged, what evaluates it alone."""
        data, model = ["--dataset_dir", str(self.root / "scenes")], self.folder / "model"
        train = [
            "train_ds.py", "--preset", "tiny", "--version", "tiny-llava", "--vision_pretrained", "tiny-sam", *data,
            "--cache_features", str(self.root / "features"), "--log_base_dir", str(self.folder), "--exp_name", "train",
            "--seed", str(self.seed), "--epochs", "1", "--steps_per_epoch", str(self.steps), "--no_eval", "--resume",
            "--device", "cpu", *self.row.flags,
        ]  # fmt: skip
        merge = [
            "merge_lora_weights.py", "--run", str(self.folder / "train"), "--save_path", str(model),
            "--checkpoint", "latest",
        ]  # fmt: skip
        evaluate = [
            "eval_reasonseg.py", "--version", str(model), *data, "--val_dataset", "ReasonSeg|test", "--protocol",
            "forced", "--workers", "0", "--output_dir", str(self.folder), "--device", "cpu",
        ]  # fmt: skip
        return [evaluate] if model.is_dir() else [train, merge, evaluate]


def finish(run: Run, stopped: Event) -> Run:
    """Do what is left of a run, with one thread; the output goes to its log.

    Raises:
        UserError: if a command fails; it names the log.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for command in run.commands():
        if stopped.is_set():
            raise UserError("stopped")
        with (run.folder / "log.txt").open("a", encoding="utf-8") as log:
            status = subprocess.run(
                [sys.executable, *command], stdout=log, stderr=log, env=environment, check=False
            ).returncode  # fmt: skip
        if status:
            stopped.set()
            raise UserError(f"{run.name} stopped with exit status {status}; see {run.folder / 'log.txt'}")
    shutil.rmtree(run.folder / "train" / "checkpoints")
    return run


def finish_all(runs: Sequence[Run], jobs: int) -> None:
    """Do the runs that are left, several side by side; after a failure no further one begins."""
    left = [run for run in runs if not run.results.is_file()]
    print(f"{len(runs) - len(left)} of {len(runs)} runs are finished", flush=True)
    stopped = Event()
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(partial(finish, run, stopped)) for run in left]
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                print(f"{number} of {len(left)}: {future.result().name}", flush=True)
        except BaseException:
            stopped.set()
            pool.shutdown(cancel_futures=True)
            raise


def keep_plan(root: Path, steps: int) -> None:
    """Write what all runs of a folder share, or refuse to mix runs of two kinds.

    Raises:
        SettingsError: if the folder was begun otherwise.
    """
    plan, file = {"steps": steps, "scenes": SCENES}, root / PLAN
    if not file.is_file():
        root.mkdir(parents=True, exist_ok=True)
        write_json(file, plan)
    before = read_json(file, fail=lambda path, reason: SettingsError(f"{path}: {reason}"), kind=dict)
    if before != plan:
        raise SettingsError(f"{root} was begun with {before}, and this is {plan}; give another folder")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    names = [row.name for row in ROWS]
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path, help="for scenes, runs and tables; the same folder goes on")
    made.add_argument("--rows", nargs="+", choices=names, default=names, metavar="ROW", help=f"of {', '.join(names)}")
    made.add_argument("--seeds", type=int, default=5, help="runs of each row (default: 5)")
    made.add_argument("--steps", type=int, default=300, help="optimizer steps of each run (default: 300)")
    made.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side (default: all cores)")
    made.add_argument("--report", action="store_true", help="write the tables of the runs that are finished, run none")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the scenes, do the runs seed by seed, report."""
    arguments = parser().parse_args(argv)
    for name in ("seeds", "steps", "jobs"):
        if getattr(arguments, name) < 1:
            raise SettingsError(f"--{name} is {getattr(arguments, name)}; give at least 1")
    root = arguments.folder
    wait_without_spinning()
    if not arguments.report:
        keep_plan(root, arguments.steps)
        counts = [word for split, count in SCENES.items() for word in (f"--{split}", str(count))]
        subprocess.run([sys.executable, "-m", "scripts.make_scenes", str(root / "scenes"), *counts], check=True)
        chosen = [row for row in ROWS if row.name in arguments.rows]
        finish_all(
            [Run(root, row, seed, arguments.steps) for seed in range(arguments.seeds) for row in chosen],
            arguments.jobs,
        )
    print(write_report(root))


if __name__ == "__main__":
    with exit_on_error():
        main()
