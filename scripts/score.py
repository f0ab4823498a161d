"""Score the masks of any system: `python -m scripts.score --benchmark "ReasonSeg|val" --predictions FILE`.

FILE is what `eval_reasonseg.py --save_predictions` writes, JSON lines of one's own, COCO's results, or a folder of PNG
masks (docs/runs.md). Scores and intervals are computed as those of a model are. `--list FILE` writes the questions of
the benchmark, with the names of their records, to be answered.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from utils.errors import OutputExistsError, SettingsError, exit_on_error
from utils.files import make_folder
from utils.settings import Settings, parse, setting, to_dict

if TYPE_CHECKING:
    from anchorseg.evaluation.evaluator import Result
    from dataset.source import Benchmark


@dataclass(frozen=True, kw_only=True)
class ScoreSettings(Settings):
    """What is scored on what, and where to write."""

    benchmark: str = setting(help="one benchmark, as --val_dataset of eval_reasonseg.py names it")
    predictions: str | None = setting(None, help="file of predictions, or folder of PNG masks")
    list: str | None = setting(None, help="file to write the benchmark's questions to, instead of scoring")
    dataset_dir: str = setting("./data", help="folder that holds the datasets")
    index_dir: str | None = setting(
        None, help="folder for what is made of large annotation files once; none: in the user's cache"
    )
    custom_data: str | None = setting(None, help="folder of the benchmark custom")
    protocol: Literal["file", "forced", "symmetric", "generate"] = setting(
        "file", help="how the questions were asked; file: as the predictions say, or else generate"
    )
    missing: Literal["refuse", "empty"] = setting(
        "refuse", help="a question without a prediction is refused, or counts as answered without a mask"
    )
    output: str | None = setting(None, help="JSON file to write scores and rows to, as results.json has them")
    report: str | None = setting(None, help="HTML page to write, as --report of eval_reasonseg.py writes it")
    workers: int = setting(4, help="processes that read images and masks ahead", minimum=0, maximum=256)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.predictions is None) == (self.list is None):
            raise SettingsError("give --predictions, the file or folder to score, or --list, a file for the questions")
        for flag, path, suffix in (("output", self.output, ".json"), ("report", self.report, ".html")):
            if path is not None and Path(path).suffix != suffix:
                raise SettingsError(f"--{flag} {path} must be a file whose name ends with {suffix}")


def main(argv: list[str] | None = None) -> None:
    """Read the settings and the predictions, then score them."""
    settings = parse(ScoreSettings, sys.argv[1:] if argv is None else argv, description=__doc__)
    prepare_outputs(settings)
    run(settings)


def prepare_outputs(settings: ScoreSettings) -> None:
    """Refuse outputs that are there, and make the folders of the others, before the work.

    Raises:
        OutputExistsError: if a file, or the folder of a report's pictures, is there.
        SettingsError: if a folder cannot be written.
    """
    flags = {"output": settings.output, "report": settings.report, "list": settings.list}
    given = {flag: Path(path) for flag, path in flags.items() if path is not None}
    for flag, path in given.items():
        if path.exists():
            raise OutputExistsError(f"{path} exists and is not overwritten; move it away, or give another name")
        if flag == "report" and path.with_suffix("").exists():
            raise OutputExistsError(
                f"{path.with_suffix('')} exists, but the pictures of --report {path} go there; move it away, or give "
                "another name"
            )
    for flag, path in given.items():
        make_folder(path.parent, f"--{flag} {path}: the folder")


def run(settings: ScoreSettings) -> None:
    """Open the benchmark; write its questions, or score the predictions."""
    from anchorseg.training.data import data_folder, open_benchmarks

    data = data_folder(settings.dataset_dir, settings.index_dir)
    opened = open_benchmarks(settings.benchmark, data, settings.custom_data, workers=settings.workers)
    if len(opened) > 1:
        raise SettingsError(f"--benchmark {settings.benchmark} names {len(opened)} benchmarks; score one at a time")
    (source,) = opened.values()
    if settings.list is not None:
        write_questions(Path(settings.list), source)
    else:
        score(settings, source)


def write_questions(path: Path, source: Benchmark) -> None:
    """Write a JSON line for each question: index, question, record, query, and the size of the masks."""
    from anchorseg.evaluation.predictions import written
    from utils.files import write_text

    lines = []
    for index in range(len(source)):
        sample = source.evaluation_sample(index, protocol=source.protocols[0])
        for number, question in enumerate(sample.questions):
            entry = {"index": index, "question": number, "record": Path(sample.record).name, "query": question.text}
            lines.append(json.dumps({**entry, "size": list(sample.image.shape[:2])}, ensure_ascii=False))
    written(path, lambda: write_text(path, "".join(f"{text}\n" for text in lines)))
    print(f"{len(lines)} questions: {path}")


def score(settings: ScoreSettings, source: Benchmark) -> None:
    """Score, print, and write what is asked for."""
    from anchorseg.evaluation.given import read_predictions
    from anchorseg.evaluation.pictures import Gallery
    from anchorseg.evaluation.report import write_pictures, write_report
    from anchorseg.evaluation.results import line, table
    from anchorseg.evaluation.score_given import score_given

    given = read_predictions(str(settings.predictions))
    protocol = (given.protocol or "generate") if settings.protocol == "file" else settings.protocol
    gallery = Gallery()
    result = score_given(
        source,
        given,
        name=settings.benchmark,
        protocol=protocol,
        missing_is_empty=settings.missing == "empty",
        workers=settings.workers,
        see=[gallery] if settings.report else [],
    )
    entry, asked = result.to_dict(), (settings.benchmark, str(protocol))
    print(line(*asked, entry))
    if settings.output is not None:
        write_output(Path(settings.output), settings, result)
        print(f"written to {settings.output}")
    if settings.report is not None:
        page = Path(settings.report)
        write_pictures(page, asked, gallery.of_all_ranks())
        write_report(page, f"Scores of {settings.predictions}", {asked: entry})
        print(f"report: {page}")
    print(table({asked: entry}))


def write_output(path: Path, settings: ScoreSettings, result: Result) -> None:
    """Scores and rows, in the form that `scripts.compare` reads."""
    from anchorseg.evaluation.predictions import written
    from utils.environment import describe_environment
    from utils.files import write_json

    content = {
        "settings": to_dict(settings),
        "environment": describe_environment(),
        "benchmarks": {result.benchmark: {result.protocol: result.to_dict()}},
    }
    written(path, lambda: write_json(path, content))


if __name__ == "__main__":
    with exit_on_error():
        main()
