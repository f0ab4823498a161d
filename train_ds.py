"""Train AnchorSeg: `deepspeed train_ds.py --preset 7b ...`; `python train_ds.py ...` starts one process."""

from __future__ import annotations

import sys
from pathlib import Path

import deepspeed

from anchorseg.build import build_for_training, check_weights
from anchorseg.data import check_cache_folder, check_data_folder
from anchorseg.settings import TrainSettings
from anchorseg.trainable import describe_trainable
from anchorseg.trainer import Trainer
from utils.distributed import ensure_single_process_environment, is_main, own_device
from utils.errors import SettingsError, exit_on_error
from utils.extensions import stale_locks
from utils.run_folder import RunFolder
from utils.settings import parse, render, to_dict

PRESETS = Path(__file__).parent / "configs"


def check_run_folder(settings: TrainSettings, folder: Path) -> None:
    """Refuse to mix two runs in one folder."""
    if not settings.resume and (folder / "checkpoints").exists():
        raise SettingsError(
            f"{folder} already holds a run; pass --resume to go on with it, or another --exp_name to begin a new one"
        )


def main(argv: list[str]) -> None:
    """Parse, build, train."""
    settings = parse(TrainSettings, argv, preset_dir=PRESETS, description=__doc__)
    folder = Path(settings.log_base_dir) / settings.exp_name
    check_run_folder(settings, folder)
    check_data_folder(settings.dataset_dir)
    check_cache_folder(settings.cache_features)
    check_weights(settings)
    ensure_single_process_environment()
    for sentence in stale_locks() if is_main() else ():
        print(f"warning: {sentence}", file=sys.stderr)
    deepspeed.init_distributed()
    own_device()  # now, for under mpirun DeepSpeed has just found out which it is
    model, registry = build_for_training(settings)
    if is_main():
        print(render(settings), "\ntrained parameters:\n" + describe_trainable(model), sep="\n")
    trainer = Trainer(settings, model, registry)
    progress = trainer.start()
    with RunFolder(folder, config=to_dict(settings), resume_step=progress.step) as run_folder:
        trainer.run(run_folder, progress)


if __name__ == "__main__":
    with exit_on_error():
        main(sys.argv[1:])
