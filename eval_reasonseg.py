"""Evaluate a model folder: `python eval_reasonseg.py --version FOLDER`; the deepspeed launcher starts several ranks."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from anchorseg.training import lisa_flags
from utils.errors import exit_on_error
from utils.files import make_folder
from utils.pictures import save_picture
from utils.run_lock import run_lock
from utils.settings import Settings, parse, setting, to_dict
from utils.waiting import wait_without_spinning

if TYPE_CHECKING:
    import torch

    from anchorseg.evaluation.evaluator import Evaluator, Prediction, Result, See
    from dataset.sample import Protocol
    from dataset.source import Benchmark


@dataclass(frozen=True, kw_only=True)
class EvalSettings(Settings):
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
        "none", help="quantize the language model's linear layers (needs bitsandbytes); scores change"
    )
    padding_attention: Literal["model", "zero", "plain"] = setting(
        "model", help="attention output of padding patches: as the model was trained, or in its place zero or plain"
    )
    bank_length: str = setting(
        "full",
        help="latent tokens of a bank: full (all), a number, auto (the model ends it), steady or steady:THRESHOLD (the "
        "prior hardly changes); for models trained with --bank_length random",
    )
    muse_matching: Literal["iou", "points"] = setting(
        "iou", help="masks and targets of MUSE are paired by IoU, or as published by BCE and Dice at random points"
    )
    model_max_length: int = setting(2048, help="longest sequence in tokens, image included", minimum=64)
    workers: int = setting(
        4, help="processes of each rank that read images ahead; 0 reads in the process", minimum=0, maximum=256
    )
    max_new_tokens: int = setting(128, help="longest generated answer", minimum=1)
    max_rows: int = setting(8, help="most questions about an image that are answered at once", minimum=1)
    compile_sam: bool = setting(False, help="compile SAM's encoder with torch.compile at its first use")
    cuda_graphs: bool = setting(
        False, help="launch the parts of the model whose shapes repeat as CUDA graphs; scores change by rounding"
    )
    cache_features: str | None = setting(
        None, help="folder that keeps what SAM's frozen encoder gives for each image; none: encode again"
    )
    cache_gigabytes: float = setting(
        200.0, help="size of --cache_features, in 10^9 bytes, from which on nothing is added", above=0
    )
    device: Literal["auto", "cpu"] = setting("auto", help="auto: a GPU, which a large model must have; cpu: never one")
    output_dir: str = setting("./runs/eval", help="folder of results.json, which every evaluation of a model adds to")
    resume: bool = setting(False, help="keep the scores that results.json has, and evaluate what is missing")
    vis_save_path: str | None = setting(None, help="folder for pictures of every question; none draws nothing")
    vis_limit: int = setting(0, help="most samples drawn of each benchmark and protocol; 0 for all", minimum=0)
    report: bool = setting(
        False,
        help="write report.html beside results.json: scores, histograms, the worst and best answers, all questions",
    )
    save_predictions: str | None = setting(
        None, help="folder for masks and answers of every question, which scripts.score scores; none keeps nothing"
    )


def draw(prediction: Prediction, folder: Path, limit: int) -> None:
    """Save one picture: the question, the image, truth, prediction, prior."""
    from anchorseg.evaluation.pictures import panel_of
    from anchorseg.evaluation.predictions import file_name

    row = prediction.row
    if limit and row.index >= limit:
        return
    name = f"{row.index:04d}_{row.question}_{file_name(Path(row.record).stem)}.png"
    save_picture(folder / name, panel_of(prediction))


def main(argv: list[str]) -> None:
    """Read the settings, then evaluate; torch takes seconds to import, and waits until the flags are right."""
    settings = parse(EvalSettings, argv, description=__doc__, elsewhere=lisa_flags.EVALUATION)
    if settings.device == "cpu":  # read when torch is imported
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    wait_without_spinning()
    for flag in ("cache_features", "vis_save_path", "save_predictions"):
        if getattr(settings, flag) is not None:
            make_folder(getattr(settings, flag), f"--{flag}")
    with run_lock(Path(settings.output_dir), flags="--output_dir"):
        evaluate(settings)


def evaluate(settings: EvalSettings) -> None:
    """Check data and model, load once, evaluate every benchmark by its protocols, in order."""
    from anchorseg.evaluation import report
    from anchorseg.evaluation.evaluator import choose_protocols
    from anchorseg.evaluation.results import Entry, ResultsFile, identify, line, table
    from anchorseg.method.model_folder import is_large, read_config
    from anchorseg.training.data import data_folder, open_benchmarks
    from anchorseg.weights.shipped import shipped
    from utils.distributed import all_gather_objects, is_main, join, leave
    from utils.loading import local_folder
    from utils.machine import refuse_without_gpu

    folder = local_folder(shipped(settings.version), "--version")
    read_config(folder)
    refuse_without_gpu(wanted=settings.device == "auto" and is_large(folder))
    data = data_folder(settings.dataset_dir, settings.index_dir)
    sources = open_benchmarks(settings.val_dataset, data, settings.custom_data, workers=settings.workers)
    plan = [
        (name, source, protocol)
        for name, source in sources.items()
        for protocol in choose_protocols(name, source, settings.protocol)
    ]
    device = join()
    file = ResultsFile(Path(settings.output_dir), identify(folder), to_dict(settings)) if is_main() else None
    done = {(name, protocol) for name, _, protocol in plan if file and settings.resume and file.has(name, protocol)}
    done = all_gather_objects(done)[0]
    if file and done:
        print(f"{len(done)} of {len(plan)} scores are in {file.path} already and are kept")
        say_unsaved(settings, done)
    evaluator = make_evaluator(settings, folder, device)
    for name, source, protocol in plan:
        if (name, protocol) in done:
            continue
        result = score(settings, evaluator, name, source, protocol)
        if file:
            file.add(result)
            print(line(name, protocol, result.to_dict()), flush=True)
    evaluator.finish()
    if file:
        entries = file.entries()
        print(f"written to {file.path}")
        asked: dict[tuple[str, str], Entry] = {(name, how): entries[name, how] for name, _, how in plan}
        if settings.report:
            path = Path(settings.output_dir) / report.FILE
            report.write_report(path, f"Evaluation of {settings.version}", asked)
            print(f"report: {path}")
        print(table(asked))
    leave()


def say_unsaved(settings: EvalSettings, kept: Collection[tuple[str, str]]) -> None:
    """Say of which scores that are kept the predictions are not there."""
    from anchorseg.evaluation.predictions import predictions_file

    if settings.save_predictions is None:
        return
    files = {asked: predictions_file(Path(settings.save_predictions), *asked) for asked in sorted(kept)}
    for (name, protocol), path in files.items():
        if not path.exists():
            print(f"warning: {name} {protocol} is kept, and its predictions are not in {path}", file=sys.stderr)


def score(settings: EvalSettings, evaluator: Evaluator, name: str, source: Benchmark, protocol: Protocol) -> Result:
    """Evaluate one benchmark by one protocol, and write its pictures and predictions."""
    from anchorseg.evaluation.pictures import Gallery
    from anchorseg.evaluation.predictions import Recorder
    from anchorseg.evaluation.report import FILE, write_pictures
    from utils.distributed import is_main

    see: list[See] = []
    if settings.vis_save_path:
        pictures = Path(settings.vis_save_path) / name.replace("|", "_") / protocol
        see.append(partial(draw, folder=pictures, limit=settings.vis_limit))
    gallery = Gallery() if settings.report else None
    recorder = Recorder(name, protocol) if settings.save_predictions else None
    see += [look for look in (gallery, recorder) if look is not None]
    result = evaluator.evaluate(source, name=name, protocol=protocol, see=see)
    if recorder is not None:
        recorder.write(Path(settings.save_predictions or ""))
    if gallery is not None:
        shown = gallery.of_all_ranks()
        if is_main():
            write_pictures(Path(settings.output_dir) / FILE, (name, protocol), shown)
    return result


def make_evaluator(settings: EvalSettings, folder: Path, device: torch.device) -> Evaluator:
    """Load the model onto a device."""
    from anchorseg.evaluation.evaluator import Evaluator
    from anchorseg.inference.collate import make_collator
    from anchorseg.inference.feature_cache import open_cache
    from anchorseg.weights.folder import DTYPES, load_model

    model, registry = load_model(
        folder,
        dtype=DTYPES.get(settings.precision, "auto"),
        quantization=settings.load_in,
        padding_attention=settings.padding_attention,
    )
    model = model.to(device)
    model.set_bank_length(settings.bank_length)
    if settings.compile_sam:
        model.masks.image_encoder.compile()
    if settings.cuda_graphs:
        model.eval().capture_graphs()
    cache = open_cache(model.masks, settings.cache_features, settings.cache_gigabytes)
    return Evaluator(
        model,
        registry,
        make_collator(
            model.config,
            registry,
            max_length=settings.model_max_length,
            store=None if cache is None else cache.store,
            latents=model.bank_rule.latents,
        ),
        max_rows=settings.max_rows,
        max_new_tokens=settings.max_new_tokens,
        cache=cache,
        workers=settings.workers,
        muse_matching=settings.muse_matching,
    )


if __name__ == "__main__":
    with exit_on_error():
        main(sys.argv[1:])
