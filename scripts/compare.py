"""Whether two evaluations differ, question by question: `python -m scripts.compare A/results.json B/results.json`.

Questions are paired by benchmark, protocol, record and number. Printed are the mean IoU of both, the difference B - A
with its 95 % bootstrap interval over images, and the shares of questions that B wins and loses; in all, by kind of
question where the annotations say one (drawn scenes do), and by length. An interval without 0 says that they differ; of
fewer than ten images it says nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anchorseg.evaluation.grouping import LENGTHS, annotated_kind, length_group
from utils.errors import DataError, exit_on_error
from utils.files import read_json

FEWEST = 10
"""Images from which on an interval is believed."""
TIE = 1e-6
"""Difference of IoU below which nobody wins."""


@dataclass(frozen=True)
class Pair:
    """One question in both evaluations."""

    record: str
    query: str
    first: float
    second: float

    @property
    def length(self) -> str:
        """The question's length in words."""
        return length_group(self.query)

    @property
    def kind(self) -> str | None:
        """The kind of question that the annotation names."""
        return annotated_kind(self.record)


def pairs_of(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]], name: str) -> list[Pair]:
    """Questions of two results that both have a score for.

    Raises:
        DataError: if they are not about the same questions.
    """
    rows = [{(Path(row["record"]).name, row["question"]): row for row in part} for part in (first, second)]
    if rows[0].keys() != rows[1].keys():
        alone = sorted(rows[0].keys() ^ rows[1].keys())[0]
        raise DataError(
            name, f"the two evaluations are not about the same questions: {alone[0]} is in one alone; evaluate both on "
            "the same data"
        )  # fmt: skip
    return [
        Pair(row["record"], row["query"], row["iou"], rows[1][key]["iou"])
        for key, row in rows[0].items()
        if row["iou"] is not None and rows[1][key]["iou"] is not None
    ]


def line(title: str, pairs: Sequence[Pair]) -> str:
    """One group of questions: means, difference with its interval, wins and losses."""
    from anchorseg.evaluation.intervals import mean_interval

    differences = [pair.second - pair.first for pair in pairs]
    mean, low, high = mean_interval(differences, [pair.record for pair in pairs])
    won = sum(difference > TIE for difference in differences) / len(pairs)
    lost = sum(difference < -TIE for difference in differences) / len(pairs)
    means = (sum(pair.first for pair in pairs) / len(pairs), sum(pair.second for pair in pairs) / len(pairs))
    images = len({pair.record for pair in pairs})
    verdict = "" if low <= 0 <= high or images < FEWEST else "  differ"
    return (
        f"{title:<24}{len(pairs):>8}{means[0]:>9.4f}{means[1]:>9.4f}{mean:>+10.4f}  [{low:+.4f}, {high:+.4f}]"
        f"{won:>8.1%}{lost:>8.1%}{verdict}"
    )


def table(pairs: Sequence[Pair]) -> str:
    """All questions, then by kind and by length."""
    groups: dict[str, list[Pair]] = {"all": list(pairs)}
    for pair in sorted(pairs, key=lambda pair: pair.kind or ""):
        if pair.kind is not None:
            groups.setdefault(pair.kind, []).append(pair)
    for _, name in LENGTHS:
        chosen = [pair for pair in pairs if pair.length == name]
        groups |= {name: chosen} if chosen else {}
    head = f"{'':<24}{'':>8}{'A':>9}{'B':>9}{'B - A':>10}  {'95 % interval':<18}{'B wins':>8}{'loses':>8}"
    return "\n".join([head, *(line(title, found) for title, found in groups.items())])


def main(argv: Sequence[str] | None = None) -> None:
    """Read, pair, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="results.json of A")
    parser.add_argument("second", type=Path, help="results.json of B")
    arguments = parser.parse_args(argv)
    contents = [read_json(path, fail=DataError, kind=dict) for path in (arguments.first, arguments.second)]
    found = [content.get("benchmarks", {}) for content in contents]
    shared = [
        (benchmark, protocol)
        for benchmark in found[0]
        for protocol in found[0][benchmark]
        if protocol in found[1].get(benchmark, {})
    ]
    if not shared:
        raise DataError(arguments.second, f"it shares no benchmark and protocol with {arguments.first}")
    for benchmark, protocol in shared:
        first, second = (part[benchmark][protocol]["rows"] for part in found)
        print(f"{benchmark}, {protocol}\n{table(pairs_of(first, second, benchmark))}\n")


if __name__ == "__main__":
    with exit_on_error():
        main()
