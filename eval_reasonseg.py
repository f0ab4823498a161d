"""Evaluate a model folder: `python eval_reasonseg.py --version FOLDER`; the deepspeed launcher starts several ranks."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, cast, get_args

import torch
import torch.distributed

from anchorseg.build import DTYPES, load_model
from anchorseg.data import check_cache_folder, data_folder, make_collator
from anchorseg.evaluation import Evaluator, Prediction, Result, check_benchmark
from anchorseg.feature_cache import open_cache
from dataset.registry import Benchmark, open_benchmark
from dataset.sample import Protocol
from utils import drawing
from utils.distributed import is_main, own_device
from utils.environment import describe_environment
from utils.errors import exit_on_error
from utils.files import write_json
from utils.pictures import save_picture
from utils.settings import parse, setting, to_dict


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """What to evaluate, how, and where to write."""

    version: str = setting(help="model folder written by merge_lora_weights.py")
    dataset_dir: str = setting("./data", help="folder that holds the datasets")
    index_dir: str | None = setting(
        None, help="folder for what is made of large annotation files once; none: in the user's cache"
    )
    custom_data: str | None = setting(None, help="folder of the benchmark custom")
    val_dataset: str = setting("ReasonSeg|val", help="benchmarks, joined by ||")
    protocol: Literal["forced", "symmetric", "generate", "both", "all"] = setting(
        "both",
        help="forced: the answer is in the prompt (published numbers); symmetric: a query bank is, whether or not "
        "there is a target; generate: the model writes it; both: forced and generate; all: every one it has",
    )
    precision: Literal["bf16", "fp32", "auto"] = setting("auto", help="type of weights; auto keeps the files'")
    load_in: Literal["none", "8bit", "4bit"] = setting(
        "none", help="quantise the language model's linear layers (needs bitsandbytes); scores change"
    )
    model_max_length: int = setting(2048, help="longest sequence in tokens, image included", minimum=64)
    workers: int = setting(4, help="processes of each rank that read images ahead; 0 reads in the process", minimum=0)
    max_new_tokens: int = setting(128, help="longest generated answer", minimum=1)
    max_rows: int = setting(8, help="most questions about an image that are answered at once", minimum=1)
    compile_sam: bool = setting(False, help="compile SAM's encoder with torch.compile at its first use")
    cache_features: str | None = setting(
        None, help="folder that keeps what SAM's frozen encoder gives for each image; none: encode again"
    )
    cache_gigabytes: float = setting(
        200.0, help="size of --cache_features, in 10^9 bytes, from which on nothing is added", above=0
    )
    output_dir: str = setting("./runs/eval", help="folder for results.json")
    vis_save_path: str | None = setting(None, help="folder for pictures of every question; none draws nothing")
    vis_limit: int = setting(0, help="most samples drawn of each benchmark and protocol; 0 for all", minimum=0)


def start_ranks() -> torch.device:
    """Join the other processes, if a launcher started several, and choose this one's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return own_device()


def draw(prediction: Prediction, folder: Path, limit: int) -> None:
    """Save one picture: the question, the image, truth, prediction, prior."""
    row, sample = prediction.row, prediction.sample
    if limit and row.index >= limit:
        return
    picture = drawing.panel(
        sample.image,
        row.query,
        truth=prediction.truth,
        prediction=prediction.mask,
        ignore=prediction.ignore,
        prior=prediction.prior,
        iou=row.iou,
        caption=row.answer or "",
    )
    record = re.sub(r"[^-.+\w]+", "_", Path(row.record).stem)
    name = f"{row.index:04d}_{row.question}_{record}.png"
    save_picture(folder / name, picture)


def choose_protocols(name: str, source: Benchmark, choice: str) -> tuple[Protocol, ...]:
    """The protocols that `--protocol` means for a benchmark.

    Raises:
        DataError: see `check_benchmark`.
    """
    groups: dict[str, tuple[Protocol, ...]] = {"both": ("forced", "generate"), "all": get_args(Protocol)}
    if choice in groups:
        chosen = tuple(protocol for protocol in groups[choice] if protocol in source.protocols)
    else:
        chosen = (cast(Protocol, choice),)
    for protocol in chosen:
        check_benchmark(name, source, protocol)
    return chosen


def shown(result: Result) -> dict[str, str]:
    """Scores of a result as text, a dash where there is nothing to average."""
    return {name: "-" if value is None else f"{value:.4f}" for name, value in result.scores.items()}


def asked(result: Result) -> str:
    """The protocol of a result, marked where it gives the answers away."""
    return f"{result.protocol} (leaks)" if result.leaks else result.protocol


def line(result: Result) -> str:
    """One result on one line."""
    scores = " ".join(f"{name} {value}" for name, value in shown(result).items())
    return f"{result.benchmark} {asked(result)}: {scores} ({result.num_samples} samples)"


def table(results: list[Result]) -> str:
    """All results, a column for each score that one of them has."""
    names = list(dict.fromkeys(name for result in results for name in result.scores))
    rows = [["benchmark", "protocol", *names]]
    rows += [[result.benchmark, asked(result), *(shown(result).get(name, "") for name in names)] for result in results]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def evaluate(settings: EvalSettings, sources: dict[str, Benchmark]) -> list[Result]:
    """Load once, evaluate every benchmark by its protocols, in order."""
    plan = [
        (name, source, protocol)
        for name, source in sources.items()
        for protocol in choose_protocols(name, source, settings.protocol)
    ]
    device = start_ranks()
    model, registry = load_model(
        settings.version, dtype=DTYPES.get(settings.precision, "auto"), quantisation=settings.load_in
    )
    model = model.to(device)
    if settings.compile_sam:
        model.sam.image_encoder.compile()
    cache = open_cache(model.sam, settings.cache_features, settings.cache_gigabytes)
    collator = make_collator(
        model.config, registry, max_length=settings.model_max_length, store=None if cache is None else cache.store
    )
    evaluator = Evaluator(
        model,
        registry,
        collator,
        max_rows=settings.max_rows,
        max_new_tokens=settings.max_new_tokens,
        cache=cache,
        workers=settings.workers,
    )
    results: list[Result] = []
    for name, source, protocol in plan:
        show = None
        if settings.vis_save_path:
            folder = Path(settings.vis_save_path) / name.replace("|", "_") / protocol
            show = partial(draw, folder=folder, limit=settings.vis_limit)
        results.append(evaluator.evaluate(source, name=name, protocol=protocol, show=show))
        if is_main():
            print(line(results[-1]), flush=True)
    if cache is not None:
        cache.finish()
    return results


def main(argv: list[str]) -> None:
    """Read the benchmarks, evaluate them, write results.json and print a table."""
    settings = parse(EvalSettings, argv, description=__doc__)
    data = data_folder(settings.dataset_dir, settings.index_dir)
    check_cache_folder(settings.cache_features)
    sources = {name: open_benchmark(name, data, settings.custom_data) for name in settings.val_dataset.split("||")}
    results = evaluate(settings, sources)
    if is_main():
        write_results(settings, results)
        print(table(results))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def write_results(settings: EvalSettings, results: list[Result]) -> None:
    """results.json: benchmark -> protocol -> scores and rows, with settings and environment."""
    benchmarks: dict[str, dict[str, object]] = {}
    for result in results:
        benchmarks.setdefault(result.benchmark, {})[result.protocol] = result.to_dict()
    path = Path(settings.output_dir) / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"settings": to_dict(settings), "environment": describe_environment(), "benchmarks": benchmarks})
    print(f"written to {path}")


if __name__ == "__main__":
    with exit_on_error():
        main(sys.argv[1:])
