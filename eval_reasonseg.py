"""Evaluate a model folder: `python eval_reasonseg.py --version FOLDER`; the deepspeed launcher starts several ranks."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import torch
import torch.distributed

from anchorseg.build import DTYPES, load_model
from anchorseg.data import build_benchmark, check_data_folder, make_collator
from anchorseg.evaluation import PROTOCOLS, Evaluator, Prediction, Result
from utils import drawing
from utils.distributed import is_main, local_rank
from utils.environment import describe_environment
from utils.errors import exit_on_error
from utils.files import write_json
from utils.settings import parse, setting, to_dict


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """What to evaluate, how, and where to write."""

    version: str = setting(help="model folder written by merge_lora_weights.py")
    dataset_dir: str = setting("./data", help="folder that holds the datasets")
    val_dataset: str = setting("ReasonSeg|val", help="benchmarks, joined by ||")
    protocol: Literal["forced", "generate", "both"] = setting(
        "both", help="forced: the answer is in the prompt (published numbers); generate: the model writes it"
    )
    precision: Literal["bf16", "fp32", "auto"] = setting("auto", help="type of weights; auto keeps the files'")
    model_max_length: int = setting(2048, help="longest sequence in tokens, image included", minimum=64)
    max_new_tokens: int = setting(128, help="longest generated answer", minimum=1)
    output_dir: str = setting("./runs/eval", help="folder for results.json")
    vis_save_path: str | None = setting(None, help="folder for pictures of every sample; none draws nothing")
    vis_limit: int = setting(0, help="most pictures of each benchmark and protocol; 0 for all", minimum=0)


def start_ranks() -> torch.device:
    """Join the other processes, if a launcher started several, and choose this one's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(local_rank())
    return torch.device("cuda", local_rank())


def draw(prediction: Prediction, folder: Path, limit: int) -> None:
    """Save one picture: the question, the image, truth, prediction, prior."""
    row, sample = prediction.row, prediction.sample
    if limit and row.index >= limit:
        return
    picture = drawing.panel(
        sample.image,
        sample.query,
        truth=sample.truth,
        prediction=prediction.mask,
        prior=prediction.prior,
        caption=row.answer or "",
    )
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{row.index:04d}_{Path(sample.record).stem}.png"
    cv2.imwrite(str(folder / name), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def main(argv: list[str]) -> None:
    """Load once, evaluate every benchmark under every protocol, write results.json."""
    settings = parse(EvalSettings, argv, description=__doc__)
    check_data_folder(settings.dataset_dir)
    sources = {name: build_benchmark(name, settings.dataset_dir) for name in settings.val_dataset.split("||")}
    device = start_ranks()
    dtype = DTYPES.get(settings.precision, "auto")
    model, registry = load_model(settings.version, dtype=dtype)
    collator = make_collator(model.config, registry, max_length=settings.model_max_length)
    evaluator = Evaluator(model.to(device), registry, collator, max_new_tokens=settings.max_new_tokens)
    protocols = PROTOCOLS if settings.protocol == "both" else (settings.protocol,)
    results: list[Result] = []
    for name, source in sources.items():
        for protocol in protocols:
            show = None
            if settings.vis_save_path:
                folder = Path(settings.vis_save_path) / name.replace("|", "_") / protocol
                show = lambda prediction, folder=folder: draw(prediction, folder, settings.vis_limit)  # noqa: E731
            results.append(evaluator.evaluate(source, name=name, protocol=protocol, show=show))
            if is_main():
                last = results[-1]
                print(f"{name} {protocol}: gIoU {last.giou:.4f} cIoU {last.ciou:.4f} ({len(last.rows)} samples)")
    if is_main():
        write_results(settings, results)
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
