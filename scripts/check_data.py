"""See what a data folder can train: `python -m scripts.check_data DIR --dataset "reason_seg||refer_seg" --sheet FILE`.

Every dataset of the eight families is opened by itself and one sample of it is drawn into a contact sheet.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dataset.expected import EXPECTED
from dataset.mixture import Source
from dataset.readers.folder import DataFolder
from dataset.readers.records import default_index_folder
from dataset.registry import FAMILIES, SETS, FamilyOptions, training_sources
from dataset.sample import Sample
from utils.drawing import contact_sheet, panel
from utils.errors import DataError, SettingsError, exit_on_error
from utils.seeding import generator_for

ATTEMPTS = 5
"""Records of a dataset that are tried for a sample."""

COLUMNS = 3


@dataclass(frozen=True)
class Finding:
    """A dataset of a family: "found", "missing" or "unusable", what else is to be said, and a sample if there is one."""

    family: str
    name: str
    state: str
    remarks: tuple[str, ...]
    sample: Sample | None = None


def examine(family: str, name: str, data: DataFolder, options: FamilyOptions) -> Finding:
    """Open a dataset and draw a sample."""
    expected = EXPECTED.get(name)
    origin = (f"from {expected.origin}",) if expected else ()
    try:
        ((_, source),) = training_sources(family, data, options)
    except FileNotFoundError as error:
        return Finding(family, name, "missing", (str(error), *origin))
    except DataError as error:
        return Finding(family, name, "unusable", (str(error), *origin))
    sample, problems = first_sample(source, name)
    count = f"{len(source):,} records"
    if expected:
        count += f", expected {expected}" + (" (warning: they differ)" if expected.differs(len(source)) else "")
    return Finding(family, name, "found" if sample else "unusable", (count, *problems), sample)


def first_sample(source: Source, name: str) -> tuple[Sample | None, tuple[str, ...]]:
    """The sample of the first record that gives one, of some that are spread evenly, and what is wrong with others."""
    problems = []
    for index in np.unique(np.linspace(0, len(source) - 1, ATTEMPTS).astype(int)).tolist():
        try:
            return source.training_sample(index, generator_for(0, name)), tuple(problems)
        except DataError as error:
            problems.append(f"bad record: {error}")
    return None, tuple(problems)


def draw(finding: Finding, sample: Sample) -> np.ndarray:
    """Question, image and truth of a sample, as (h, w, 3) uint8 RGB."""
    turn = sample.conversations[0].turns[0]
    answer = "".join(part if isinstance(part, str) else f"<{type(part).__name__}>" for part in turn.answer or ())
    return panel(
        sample.image,
        turn.question,
        truth=sample.truth if len(sample.masks) else None,
        ignore=sample.void,
        caption=f"{finding.family}/{finding.name}: {answer}",
    )


def write_sheet(findings: Sequence[Finding], path: Path) -> None:
    """Write the samples of all findings as one picture."""
    pictures = [draw(finding, finding.sample) for finding in findings if finding.sample]
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(contact_sheet(pictures, COLUMNS), cv2.COLOR_RGB2BGR)):
        raise SettingsError(f"--sheet {path} cannot be written; give the name of a .png file")
    print(f"picture: {path}")


def table(findings: Sequence[Finding]) -> str:
    """A line for each finding, further remarks below it."""
    names = [f"{finding.family}/{finding.name}" for finding in findings]
    width = max(map(len, names))
    lines = []
    for name, finding in zip(names, findings, strict=True):
        first, *others = finding.remarks
        lines += [f"{name:{width}}  {finding.state:8}  {first}", *(f"{'':{width + 12}}{other}" for other in others)]
    return "\n".join(lines)


def verdict(findings: Sequence[Finding], mixture: Sequence[str]) -> tuple[bool, str]:
    """Whether a mixture of families can train, and a sentence that says so; no families means all that were found."""
    wanted = list(mixture) or list(dict.fromkeys(finding.family for finding in findings if finding.state == "found"))
    if not wanted:
        return False, "Nothing can train: no dataset was found."
    lacking = [f for f in findings if f.family in wanted and f.state != "found" and (mixture or f.state == "unusable")]
    named = "||".join(wanted)
    if lacking:
        reasons = ", ".join(f"{finding.family}/{finding.name} is {finding.state}" for finding in lacking)
        return False, f"The mixture {named} cannot train: {reasons}."
    return True, f"The mixture {named} can train."


def main() -> int:
    """Examine, print, draw; 0 if the mixture can train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path, help="folder that holds the datasets")
    parser.add_argument("--dataset", help="families to be trained, joined by ||; all that are found if left out")
    parser.add_argument("--index_dir", type=Path, default=default_index_folder(), help="folder of annotation indices")
    parser.add_argument("--sheet", type=Path, default=Path("check_data.png"), help="picture of the samples to write")
    parser.add_argument("--custom_data", help="folder of the family custom")
    arguments = parser.parse_args()
    raise NotImplementedError


if __name__ == "__main__":
    with exit_on_error():
        raise SystemExit(main())
