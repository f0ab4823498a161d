"""results.json: the scores of one model, benchmark by benchmark; every evaluation of the model adds to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anchorseg.evaluation.evaluator import Result
from anchorseg.method.model_folder import tokenizer_files
from utils.environment import describe_environment
from utils.errors import OutputExistsError
from utils.files import file_digest, read_json, write_json
from utils.shown import shown
from utils.tensor_files import weight_files

FILE = "results.json"
SCORED = (
    "precision",
    "load_in",
    "padding_attention",
    "model_max_length",
    "max_new_tokens",
    "bank_length",
    "muse_matching",
)
"""Settings that scores depend on; one file holds scores of one value of each."""

_BEFORE = {"bank_length": "full", "muse_matching": "iou"}
"""What scores were made with by versions that did not have the setting yet."""

DATA = ("dataset_dir", "custom_data")
"""Settings that say which data a benchmark was read from."""

_NO_SCORES = ("num_samples", "num_questions", "leaks", "intervals", "rows")

Entry = Mapping[str, Any]
"""Scores and rows of one benchmark under one protocol, as `Result.to_dict` gives them."""


@dataclass(frozen=True)
class Model:
    """Which model was scored: its folder, and a digest of its files."""

    folder: str
    digest: str


def identify(folder: Path) -> Model:
    """The model of a folder, told from another by its configuration, its tokenizer and all its weights."""
    total = hashlib.blake2b(digest_size=16)
    for path in [folder / "config.json", *tokenizer_files(folder), *weight_files(folder)]:
        total.update(f"{path.name} {file_digest(path)}\n".encode())
    return Model(str(folder), total.hexdigest())


class ResultsFile:
    """The file of a folder, whole after every benchmark.

    Args:
        folder: that holds or gets results.json.
        model: that is scored.
        settings: of this evaluation, all of them, as JSON holds them.

    Raises:
        OutputExistsError: if the file holds scores of another model or under other settings, or is damaged.
    """

    def __init__(self, folder: Path, model: Model, settings: Mapping[str, Any]) -> None:
        self.path = folder / FILE
        self._content = self._read() or {"model": None, "scored_with": None, "runs": [], "benchmarks": {}}
        asked = {name: settings[name] for name in SCORED}
        self._refuse_other(model, asked)
        self._content |= {"model": {"folder": model.folder, "digest": model.digest}, "scored_with": asked}
        self._run: dict[str, Any] = {
            "settings": dict(settings), "environment": describe_environment(), "scored": []
        }  # fmt: skip

    def _read(self) -> dict[str, Any] | None:
        try:
            content: dict[str, Any] = read_json(self.path, fail=_damaged, kind=dict)
        except FileNotFoundError:
            return None
        kinds = {"model": dict, "scored_with": dict, "runs": list, "benchmarks": dict}
        wrong = [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]
        if wrong:
            raise _damaged(self.path, f"it has no {wrong[0]}, or was written by an earlier version")
        if not all(_is_run(run) for run in content["runs"]):
            raise _damaged(self.path, 'its "runs" are not as an evaluation writes them')
        if not all(_is_entry(entry) for found in content["benchmarks"].values() for entry in _values(found)):
            raise _damaged(self.path, 'its "benchmarks" are not as an evaluation writes them')
        return content

    def _refuse_other(self, model: Model, asked: Mapping[str, Any]) -> None:
        before = self._content["model"]
        if before is not None and before.get("digest") != model.digest:
            raise OutputExistsError(
                f"{self.path} holds scores of another model, {shown(before.get('folder'))}; give another --output_dir"
            )
        scored_with = self._content["scored_with"]
        for name, value in ({} if scored_with is None else {**_BEFORE, **scored_with}).items():
            if name in asked and asked[name] != value:
                raise OutputExistsError(
                    f"{self.path} holds scores with {name} {shown(value)}, and this evaluation has "
                    f"{shown(asked[name])}; pass --{name} {shown(value)}, or give another --output_dir"
                )

    def has(self, benchmark: str, protocol: str) -> bool:
        """Whether the file holds a score that was read from the data of this evaluation's settings."""
        mine = self._run["settings"]
        return any(
            [benchmark, protocol] in run["scored"] and all(run["settings"].get(name) == mine.get(name) for name in DATA)
            for run in self._content["runs"]
        )

    def add(self, result: Result) -> None:
        """Put a result in, in the place of an earlier one, and write the file."""
        scored = [result.benchmark, result.protocol]
        for run in self._content["runs"]:
            run["scored"] = [pair for pair in run["scored"] if pair != scored]
        self._run["scored"].append(scored)
        earlier = [run for run in self._content["runs"] if run["scored"] and run is not self._run]
        self._content["runs"] = [*earlier, self._run]
        self._content["benchmarks"].setdefault(result.benchmark, {})[result.protocol] = result.to_dict()
        write_json(self.path, self._content)

    def entries(self) -> dict[tuple[str, str], Entry]:
        """Everything in the file, by benchmark and protocol."""
        benchmarks = self._content["benchmarks"]
        return {(name, protocol): entry for name, found in benchmarks.items() for protocol, entry in found.items()}


def _damaged(path: Path, reason: str) -> OutputExistsError:
    return OutputExistsError(f"{path}: {reason}; move it away, or give another --output_dir")


def _values(found: Any) -> Sequence[Any]:
    return list(found.values()) if isinstance(found, dict) else [found]


def _is_run(run: Any) -> bool:
    return isinstance(run, dict) and isinstance(run.get("settings"), dict) and isinstance(run.get("scored"), list)


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("rows"), list):
        return False
    return all(value is None or isinstance(value, int | float) for value in _scores(entry).values())


def score_names(entry: Entry) -> list[str]:
    """Names of the scores of an entry."""
    return [name for name in entry if name not in _NO_SCORES]


def _scores(entry: Entry) -> dict[str, float | None]:
    return {name: entry[name] for name in score_names(entry)}


def _texts(entry: Entry) -> dict[str, str]:
    """Scores as text, a dash where there is nothing to average."""
    return {name: "-" if value is None else f"{value:.4f}" for name, value in _scores(entry).items()}


def _asked(protocol: str, entry: Entry) -> str:
    """A protocol, marked where it gives the answers away."""
    return f"{protocol} (leaks)" if entry.get("leaks") else protocol


def line(benchmark: str, protocol: str, entry: Entry) -> str:
    """One result on one line, with intervals."""
    intervals = entry.get("intervals") or {}
    ends = {name: "" if pair is None else f" ({pair[0]:.4f} to {pair[1]:.4f})" for name, pair in intervals.items()}
    scores = " ".join(f"{name} {value}{ends.get(name, '')}" for name, value in _texts(entry).items())
    return f"{benchmark} {_asked(protocol, entry)}: {scores} ({entry.get('num_samples')} samples)"


def table(entries: Mapping[tuple[str, str], Entry]) -> str:
    """Results, a column for each score that one of them has."""
    names = list(dict.fromkeys(name for entry in entries.values() for name in _scores(entry)))
    rows = [["benchmark", "protocol", *names]]
    for (benchmark, protocol), entry in entries.items():
        texts = _texts(entry)
        rows.append([benchmark, _asked(protocol, entry), *(texts.get(name, "") for name in names)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
