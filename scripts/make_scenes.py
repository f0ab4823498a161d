"""Write drawn scenes in ReasonSeg's layout: `python -m scripts.make_scenes DIR --train 3000 --val 60 --test 240`."""

from __future__ import annotations

import argparse

from dataset.drawn.writer import write_scenes
from utils.errors import exit_on_error


def main() -> None:
    """Parse and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dir", help="folder that will hold reason_seg/ReasonSeg")
    parser.add_argument("--train", type=int, default=3000, help="scenes to train on")
    parser.add_argument("--val", type=int, default=60, help="scenes to validate on")
    parser.add_argument("--test", type=int, default=240, help="scenes to test on")
    parser.add_argument("--seed", type=int, default=0, help="of all scenes")
    arguments = parser.parse_args()
    counts = {"train": arguments.train, "val": arguments.val, "test": arguments.test}
    written = write_scenes(arguments.dir, counts=counts, seed=arguments.seed)
    print(f"{'wrote' if written else 'found'} {counts} scenes in {arguments.dir}")


if __name__ == "__main__":
    with exit_on_error():
        main()
