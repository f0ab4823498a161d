"""Compare this installation with numbers of the published implementation: `python -m scripts.parity [DIR]`.

Without DIR the numbers are those of the digest in `tests/parity`: every file, large arrays as samples. DIR holds files
such as forward_train.npz and, beside them, what the weights follow from: config.json, state_dict_keys.json and the
tokenizer. Each array is computed anew from the rawest inputs that its file has. DIR may also hold the numbers of the
baselines, such as gsva_train_original.npz; their heads, points, decoders and losses are then compared.
"""

from __future__ import annotations

import argparse
import os
import sys
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from utils.errors import UserError, exit_on_error

if TYPE_CHECKING:
    from tests.parity.reference import Row


BASELINES = "gsva_train_original.npz"
BASELINE_TESTS = (
    "parity/test_baselines.py",
    "parity/test_heads.py",
    "parity/test_pixellm.py",
    "anchorseg/test_points.py",
)


def table(rows: list[Row]) -> str:
    """Rows as text: file, array, worst error as a share of the array's maximum, what became of it."""
    wide = max((len(row.array) for row in rows), default=0)
    file_wide = max((len(row.file) for row in rows), default=0)
    lines = []
    for row in rows:
        error = "" if row.error is None else f"{row.error:.1e}"
        lines.append(f"{row.file:<{file_wide}}  {row.array:<{wide}}  {error:>8}  {row.status:<5}  {row.note}".rstrip())
    return "\n".join(lines)


def worst_by_file(rows: list[Row]) -> str:
    """One line for each file: how many arrays passed and the worst error among them."""
    lines = []
    for file, group in groupby(rows, key=lambda row: row.file):
        compared = [row for row in group if row.status in ("pass", "FAIL")]
        if compared:
            worst = max((row.error for row in compared if row.error is not None), default=0.0)
            failed = sum(row.failed for row in compared)
            lines.append(f"{file}: {len(compared) - failed} passed, {failed} failed, worst error {worst:.1e}")
    return "\n".join(lines)


def check_baselines(folder: Path) -> int:
    """Run the tests that compare with the numbers of a folder; the exit status."""
    import pytest

    os.environ["ANCHORSEG_BASELINES"] = str(folder.resolve())
    root = Path(__file__).parents[1]
    every = ["-v", "-m", "slow or not slow", "-p", "no:cacheprovider"]
    return int(pytest.main([*every, *(str(root / file) for file in BASELINE_TESTS)]))


def main(argv: list[str] | None = None) -> int:
    """Print the table and return the exit status: 0 if nothing failed."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.parity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="DIR", nargs="?", type=Path, help="folder of the published numbers")
    parser.add_argument("--weights", metavar="DIR", type=Path, help="folder of the weights' rules, if another")
    given = parser.parse_args(argv)
    for folder in (given.folder, given.weights):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{folder} is no folder; give the one that holds the published numbers and config.json")

    if given.folder is not None and (given.folder / BASELINES).is_file():
        return check_baselines(given.folder)

    from tests.parity.checks import check_folder
    from tests.parity.digest import unpack

    with TemporaryDirectory() as scratch:
        rows = check_folder(given.folder or unpack(Path(scratch)), given.weights)
    failed = sum(row.failed for row in rows)
    passed = sum(row.status == "pass" for row in rows)
    print(table(rows), worst_by_file(rows), f"{passed} passed, {failed} failed", sep="\n\n")
    return 1 if failed else 0


if __name__ == "__main__":
    with exit_on_error():
        sys.exit(main())
