"""Seconds until a program has printed its help, and until `import anchorseg` is done: `python -m benchmarks.startup`.

Every figure is the median of fresh processes. `--against FOLDER` measures another checkout in turn with this one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from utils.errors import exit_on_error
from utils.files import write_json

ROOT = Path(__file__).parents[1]
IMPORT = "import anchorseg"


def entry_points(root: Path = ROOT) -> list[str]:
    """The modules of a checkout that are programs, by name."""
    files = [*root.glob("*.py"), *(root / "scripts").glob("*.py")]
    programs = [path for path in files if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")]
    return sorted(".".join(path.relative_to(root).with_suffix("").parts) for path in programs)


def commands(root: Path) -> dict[str, list[str]]:
    """What is measured, by its title."""
    helps = {f"{name} --help": ["-m", name, "--help"] for name in entry_points(root)}
    command = "from scripts.command import main; main(['--help'])"
    return {"python": ["-c", ""], IMPORT: ["-c", IMPORT], "anchorseg --help": ["-c", command], **helps}


def seconds(arguments: list[str], root: Path) -> float:
    """Wall-clock time of one python process in a checkout; fails if the process does."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=root, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure(roots: list[Path], runs: int) -> dict[str, list[float]]:
    """Medians of each command that all checkouts have, a value for each; one run of each before is not counted."""
    wanted = commands(ROOT)
    shared = [title for title in wanted if all(title in commands(root) for root in roots)]
    medians = {}
    for title in shared:
        times: list[list[float]] = [[] for _ in roots]
        for count in range(runs + 1):
            for root, found in zip(roots, times, strict=True):
                taken = seconds(wanted[title], root)
                if count:
                    found.append(taken)
        medians[title] = [statistics.median(found) for found in times]
    return medians


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="processes of each")
    parser.add_argument("--against", help="folder of another checkout")
    parser.add_argument("--out", help="JSON file to write")
    given = parser.parse_args()
    roots = [ROOT, *([Path(given.against).resolve()] if given.against else [])]
    medians = measure(roots, max(given.runs, 1))
    print(f"{'seconds':<36}{'here':>8}" + (f"{'there':>8}{'ratio':>8}" if given.against else ""))
    for title, found in medians.items():
        ratio = f"{found[0] / found[1]:8.2f}" if given.against else ""
        print(f"{title:<36}" + "".join(f"{value:8.3f}" for value in found) + ratio)
    if given.out:
        write_json(given.out, {"runs": given.runs, "seconds": medians})


if __name__ == "__main__":
    with exit_on_error():
        main()
