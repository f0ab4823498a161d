"""Which datasets can train, what is missing and where it comes from: `python -m scripts.check_data DATA`.

`--dataset "sem_seg||refer_seg"` asks whether that mixture can train, and speaks of nothing else; the flags that choose
its datasets are those of train_ds.py. The exit status is 0 if it can. `--sheet sheet.png` draws samples of each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anchorseg.training.settings import DataSettings
from dataset.registry import FAMILIES, datasets
from utils.errors import SettingsError, exit_on_error
from utils.pictures import check_picture_path, save_picture

if TYPE_CHECKING:
    import numpy as np

_COLUMNS = 3


def mixture(families: str, chosen: dict[str, str], custom_data: str | None) -> list[str]:
    """Names of the datasets that a mixture reads.

    Raises:
        SettingsError: for an unknown family or dataset, or `custom` without a folder.
    """
    names: list[str] = []
    for family in families.split("||"):
        if family not in FAMILIES:
            raise SettingsError(f"--dataset {family}: no such family; allowed: {', '.join(FAMILIES)}")
        if family == "custom" and custom_data is None:
            raise SettingsError("--dataset custom needs --custom_data FOLDER (docs/data.md)")
        if family == "custom":
            names.append(family)
            continue
        known = [name.partition("|")[0] for name in datasets()[family]]
        for name in chosen[family].split("||"):
            if name.partition("|")[0] not in known:
                raise SettingsError(f"--{family}_data {name}: no such dataset; allowed: {', '.join(known)}")
            names.append(f"{family}/{name}")
    return names


def main(argv: Sequence[str] | None = None) -> int:
    """Open everything, report, draw; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", help="folder that holds all datasets, --dataset_dir of a run")
    parser.add_argument("--dataset", help="families of a mixture, joined by ||; none: everything that is there")
    for family in datasets():
        default = FAMILIES[family].chosen
        parser.add_argument(f"--{family}_data", default=default, help=f"datasets of {family}, joined by ||")
    parser.add_argument("--custom_data", help="folder of the family custom")
    parser.add_argument("--explanatory", type=float, default=DataSettings.explanatory, help="as in train_ds.py")
    parser.add_argument("--index_dir", help="as in train_ds.py")
    parser.add_argument("--workers", type=int, default=DataSettings.workers, help="processes that check records")
    parser.add_argument("--sheet", help="picture to write, with samples of every dataset that can train")
    given = parser.parse_args(argv)
    chosen = {family: getattr(given, f"{family}_data") for family in datasets()}
    wanted = mixture(given.dataset, chosen, given.custom_data) if given.dataset else []
    if given.sheet:
        check_picture_path(given.sheet)
    return report(given, wanted)


def report(given: argparse.Namespace, wanted: list[str]) -> int:
    """Examine the datasets of a mixture, or all, and print what came of it; returns the exit status."""
    from anchorseg.training.data import data_folder
    from dataset.examining import Finding, examine, lines
    from dataset.registry import FamilyOptions

    data = data_folder(given.dir, given.index_dir)
    options = FamilyOptions(explanatory=given.explanatory, custom_data=given.custom_data)
    every = [f"{family}/{name}" for family, names in datasets().items() for name in names]
    findings: dict[str, Finding] = {}
    for name in wanted or [*every, *(["custom"] if given.custom_data else [])]:
        findings[name] = examine(name, data, options, workers=max(given.workers, 0))
        print("\n".join(lines(name, findings[name], data.root)), flush=True)
    if given.sheet:
        write_sheet(Path(given.sheet), [picture for finding in findings.values() for picture in finding.pictures])
    return verdict(given.dataset, {name: finding.state for name, finding in findings.items()})


def verdict(mixture: str | None, states: dict[str, str]) -> int:
    """Say whether a mixture, or what is there, can train; returns the exit status."""
    if mixture is None:
        states = {name: state for name, state in states.items() if state != "missing"}
        if set(states.values()) == {"val only"}:
            print("what is there has nothing to train on, and can be evaluated")
            return 0
        states = {name: state for name, state in states.items() if state != "val only"}
    failing = [name for name, state in states.items() if state != "ready"]
    can = bool(states) and not failing
    subject = "what is there" if mixture is None else f"the mixture {mixture}"
    print(f"{subject} {'can train' if can else 'cannot train: ' + (', '.join(failing) or 'nothing')}")
    return 0 if can else 1


def write_sheet(path: Path, pictures: list[np.ndarray]) -> None:
    """Write pictures as one, if there are any."""
    from utils import drawing

    if pictures:
        save_picture(path, drawing.contact_sheet(pictures, _COLUMNS))
        print(f"picture: {path}")


if __name__ == "__main__":
    with exit_on_error():
        sys.exit(main())
