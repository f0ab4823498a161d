"""Write drawn scenes as datasets: `python -m scripts.make_scenes DIR --train 3000 --val 60 --test 240`.

That is ReasonSeg's layout; `--families all --images 500` writes those of all other families too.
"""

from __future__ import annotations

import argparse

from dataset.registry import datasets
from utils.errors import SettingsError, exit_on_error

REASON_SEG = "reason_seg"
ALL = (REASON_SEG, *(family for family in datasets() if family != REASON_SEG))


def chosen_families(text: str) -> list[str]:
    """Families of a comma-separated list, or all of them.

    Raises:
        SettingsError: for an unknown name.
    """
    names = list(ALL) if text == "all" else [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in ALL]
    if unknown:
        raise SettingsError(f"--families has no {', '.join(map(repr, unknown))}; allowed: all, {', '.join(ALL)}")
    return names


def main() -> None:
    """Parse and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", help="folder that will hold the datasets, such as reason_seg/ReasonSeg")
    parser.add_argument("--families", default=REASON_SEG, help=f"all, or some of {','.join(ALL)}")
    parser.add_argument("--train", type=int, default=3000, help="scenes of reason_seg to train on")
    parser.add_argument("--val", type=int, default=60, help="scenes of reason_seg to validate on")
    parser.add_argument("--test", type=int, default=240, help="scenes of reason_seg to test on")
    parser.add_argument("--images", type=int, default=300, help="scenes of every other dataset to train on")
    parser.add_argument("--seed", type=int, default=0, help="of all scenes")
    arguments = parser.parse_args()
    families = chosen_families(arguments.families)

    from dataset.drawn.writer import write_scenes
    from tests.drawn.layouts import write_layouts

    if REASON_SEG in families:
        counts = {"train": arguments.train, "val": arguments.val, "test": arguments.test}
        written = write_scenes(arguments.dir, counts=counts, seed=arguments.seed)
        print(f"{'wrote' if written else 'found'} {counts} scenes in {arguments.dir}")
    others = [family for family in families if family != REASON_SEG]
    if others:
        write_layouts(arguments.dir, families=others, images=arguments.images, seed=arguments.seed)
        print(f"{', '.join(others)}: {arguments.images} scenes to train on in each dataset of {arguments.dir}")


if __name__ == "__main__":
    with exit_on_error():
        main()
