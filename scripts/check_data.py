"""Which datasets can train, what is missing and where it comes from: `python -m scripts.check_data DATA`.

`--dataset "sem_seg||refer_seg"` asks whether that mixture can train, and speaks of nothing else; the flags that choose
its datasets are those of train_ds.py. The exit status is 0 if it can. `--sheet sheet.png` draws samples of each;
`--browse FOLDER` writes pages of them, with every target, turn and answer, to look at in a browser.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from anchorseg.training.settings import DataSettings, RunSettings
from dataset.registry import FAMILIES, datasets
from utils.errors import SettingsError, exit_on_error
from utils.files import new_folder, refuse_existing
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
    for flag in ("num_classes_per_sample", "num_classes_per_question"):
        default = getattr(DataSettings, flag)
        parser.add_argument(f"--{flag}", type=from_one, default=default, help="as in train_ds.py, for --browse")
    parser.add_argument("--index_dir", help="as in train_ds.py")
    parser.add_argument("--workers", type=int, default=DataSettings.workers, help="processes that check records")
    parser.add_argument("--sheet", help="picture to write, with samples of every dataset that can train")
    parser.add_argument("--browse", help="folder to write, a new one: pages of samples of every dataset that can train")
    parser.add_argument("--samples", type=from_one, default=24, help="of each dataset, for --browse")
    parser.add_argument("--samples_per_page", type=from_one, default=12, help="for --browse")
    parser.add_argument("--seed", type=int, default=RunSettings.seed, help="as in train_ds.py, for --browse")
    given = parser.parse_args(argv)
    chosen = {family: getattr(given, f"{family}_data") for family in datasets()}
    wanted = mixture(given.dataset, chosen, given.custom_data) if given.dataset else []
    if given.sheet:
        check_picture_path(given.sheet)
    if given.browse:
        refuse_existing(Path(given.browse))
    return report(given, wanted)


def from_one(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def report(given: argparse.Namespace, wanted: list[str]) -> int:
    """Examine the datasets of a mixture, or all, and print what came of it; returns the exit status."""
    from anchorseg.training.data import data_folder
    from dataset.browsing import INDEX, Leafing, Section, write_index, write_section
    from dataset.examining import examine, lines
    from dataset.registry import FamilyOptions

    data = data_folder(given.dir, given.index_dir)
    options = FamilyOptions(
        explanatory=given.explanatory,
        custom_data=given.custom_data,
        max_questions=given.num_classes_per_sample,
        max_per_question=given.num_classes_per_question,
    )
    every = [f"{family}/{name}" for family, names in datasets().items() for name in names]
    leafing = Leafing(samples=given.samples, on_page=given.samples_per_page, seed=given.seed)
    states: dict[str, str] = {}
    pictures: list[np.ndarray] = []
    sections: list[Section] = []
    with _folder(given.browse) as pages:
        for name in wanted or [*every, *(["custom"] if given.custom_data else [])]:
            finding = examine(name, data, options, workers=max(given.workers, 0))
            print("\n".join(lines(name, finding, data.root)), flush=True)
            states[name] = finding.state
            pictures += finding.pictures
            if pages is not None and finding.state == "ready" and finding.source is not None:
                sections.append(write_section(pages, name, finding.source, leafing))
        if pages is not None:
            write_index(pages, sections, leafing)
    if given.sheet:
        write_sheet(Path(given.sheet), pictures)
    if given.browse:
        print(f"pages: {Path(given.browse) / INDEX}")
    return verdict(given.dataset, states)


def _folder(path: str | None) -> AbstractContextManager[Path | None]:
    return new_folder(path) if path else nullcontext()


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
