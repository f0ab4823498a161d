"""Merge a run into a model folder: `python merge_lora_weights.py --run runs/EXP_NAME --save_path FOLDER`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from anchorseg.build import load_model, save_model
from anchorseg.merging import load_trained, max_difference, merged_copy
from utils.errors import CheckpointError, exit_on_error
from utils.files import write_json
from utils.settings import parse, setting

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


@dataclass(frozen=True, kw_only=True)
class MergeSettings:
    """What to merge, and where to."""

    run: str = setting(help="run folder, such as runs/EXP_NAME")
    save_path: str = setting(help="new model folder")
    checkpoint: Literal["best", "latest"] = setting("best", help="which checkpoint of the run")


def main(argv: list[str]) -> None:
    """Load, merge, save, load again, compare."""
    settings = parse(MergeSettings, argv, description=__doc__)
    target = Path(settings.save_path)
    if target.exists() and any(target.iterdir()):
        raise CheckpointError(f"--save_path {target} is not empty; give a new folder, nothing is overwritten")
    model, registry, _ = load_trained(Path(settings.run), settings.checkpoint)
    save_model(merged_copy(model), registry, target)
    saved, registry = load_model(target)
    absolute, relative = max_difference(model, saved, registry)
    proof = {"max_abs_difference": absolute, "max_relative_difference": relative}
    write_json(target / "merge.json", {"run": settings.run, "checkpoint": settings.checkpoint, **proof})
    print(
        f"merged model in {target}; largest difference to the unmerged model: {absolute:.2e} "
        f"({relative:.2e} of the largest value)"
    )
    if relative > TOLERANCE[next(saved.parameters()).dtype]:
        raise CheckpointError(f"{target}: merged and unmerged differ by {relative:.2e}")


if __name__ == "__main__":
    with exit_on_error():
        main(sys.argv[1:])
