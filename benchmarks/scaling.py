"""How the costs grow: `python -m benchmarks.scaling --size mid`.

A training step against conversations of an image and against the size of the image, written answers against questions
about one image, and training of the tiny preset by `train_ds.py` against ranks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import inference
from benchmarks.measure import Cost, as_json, describe
from benchmarks.train_step import Steps
from benchmarks.workload import build, samples

Costs = dict[str, Cost]
ROOT = Path(__file__).parents[1]
STEPS = 20


def images_per_second(ranks: int) -> float:
    """Of all ranks of a training run on drawn scenes, one thread a rank; its second half, without the start."""
    with tempfile.TemporaryDirectory() as folder:
        scenes = [sys.executable, "-m", "scripts.make_scenes", folder, "--train", "40", "--val", "1", "--test", "1"]
        subprocess.run(scenes, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        command = [
            str(Path(sys.executable).with_name("deepspeed")), "--num_accelerators", str(ranks), "train_ds.py",
            "--preset", "scratch", "--train_scope", "paper", "--dataset_dir", folder, "--log_base_dir", folder,
            "--exp_name", "ranks", "--epochs", "1", "--steps_per_epoch", str(STEPS), "--print_freq", str(STEPS // 2),
            "--batch_size", "2", "--no_eval", "--workers", "0",
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=ROOT, check=True, env=environment, stdout=subprocess.DEVNULL)
        lines = (Path(folder) / "ranks" / "metrics.jsonl").read_text().splitlines()
    return float(
        [json.loads(line) for line in lines if "train/images_per_second" in line][-1]["train/images_per_second"]
    )


def main(argv: list[str] | None = None) -> None:
    """Measure and print one table a line of the series."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["tiny", "mid"], default="mid")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 3, 9, 27], help="conversations, and questions")
    parser.add_argument("--heights", type=int, nargs="+", default=[240, 480, 960], help="of the image; 4:3")
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2], help="processes of a training run")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args(argv)
    model, registry = build(arguments.size)
    series: dict[str, dict[int, Costs]] = {"conversations": {}, "image height": {}, "questions": {}}
    for count in arguments.counts:
        found = Steps(model, registry, samples(1, count)).costs(arguments.repeats)
        series["conversations"][count] = found
        print(describe(f"training step, {count} conversations", found, images=1), flush=True)
    for height in arguments.heights:
        chosen = samples(1, 3, height=height, width=height * 4 // 3)
        found = Steps(model, registry, chosen).costs(arguments.repeats)
        series["image height"][height] = found
        print(describe(f"training step, image {height} high", found, images=1), flush=True)
    model.eval()
    for count in arguments.counts:
        found = inference.Answers(model, registry, 1, count).costs(arguments.repeats)["written"]
        series["questions"][count] = found
        print(describe(f"{count} questions, written", found, images=1), flush=True)
    speeds = {ranks: images_per_second(ranks) for ranks in arguments.ranks}
    for ranks, speed in speeds.items():
        print(f"train_ds.py --preset scratch, {ranks} rank(s): {speed:.2f} images/s", flush=True)
    print(
        json.dumps(
            {
                "size": arguments.size,
                "series": {
                    name: {value: as_json(found) for value, found in rows.items()} for name, rows in series.items()
                },
                "images_per_second_by_ranks": speeds,
            }
        )
    )


if __name__ == "__main__":
    main()
