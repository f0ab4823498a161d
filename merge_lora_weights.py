"""Merge a run into a model folder: `python merge_lora_weights.py --run runs/EXP_NAME --save_path FOLDER`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anchorseg.training import lisa_flags
from utils.errors import CheckpointError, exit_on_error
from utils.files import new_folder, refuse_existing, write_json
from utils.settings import Settings, parse, setting

TOLERANCE = {"torch.float32": 1e-4, "torch.bfloat16": 5e-2}


@dataclass(frozen=True, kw_only=True)
class MergeSettings(Settings):
    """What to merge, and where to."""

    run: str = setting(help="run folder, such as runs/EXP_NAME")
    save_path: str = setting(help="new model folder")
    checkpoint: Literal["best", "latest"] = setting("best", help="which checkpoint of the run")


def main(argv: list[str]) -> None:
    """Read the settings, then merge; torch waits until the flags are right."""
    merge(parse(MergeSettings, argv, description=__doc__, elsewhere=lisa_flags.MERGING))


def merge(settings: MergeSettings) -> None:
    """Load, merge, save, load again, compare."""
    from anchorseg.training.merging import load_trained, max_difference, merged_copy, training_record
    from anchorseg.weights.folder import load_model, save_model

    target = Path(settings.save_path)
    refuse_existing(target)
    run = Path(settings.run)
    model, registry = load_trained(run, settings.checkpoint)
    record = training_record(run, settings.checkpoint)
    # Under another name until it has proved equal, so that a folder with the name given is whole and right.
    with new_folder(target) as aside:
        save_model(merged_copy(model), registry, aside, record=record)
        saved, registry = load_model(aside)
        absolute, relative = max_difference(model, saved, registry)
        tolerance = TOLERANCE[str(next(saved.parameters()).dtype)]
        if not relative <= tolerance:
            raise CheckpointError(
                f"merged and unmerged differ by {relative:.2e} of the largest value, more than {tolerance:.0e}; "
                f"{target} is not written"
            )
        proof = {"max_abs_difference": absolute, "max_relative_difference": relative}
        write_json(aside / "merge.json", {"run": settings.run, "checkpoint": settings.checkpoint, **proof})
    print(
        f"merged model in {target}; largest difference to the unmerged model: {absolute:.2e} "
        f"({relative:.2e} of the largest value)"
    )


if __name__ == "__main__":
    with exit_on_error():
        main(sys.argv[1:])
