"""Train AnchorSeg: `deepspeed train_ds.py --preset 7b ...`; `python train_ds.py ...` starts one process."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from anchorseg.training import lisa_flags
from anchorseg.training.settings import SMALL, RunSettings, TrainSettings
from utils.errors import SettingsError, exit_on_error
from utils.numerics import choose_numerics, prepare_determinism
from utils.run_lock import run_lock
from utils.settings import parse, render, to_dict
from utils.stopping import StopSignals
from utils.waiting import wait_without_spinning

if TYPE_CHECKING:
    from anchorseg.training.checkpoints import Progress

PRESETS = Path(__file__).parent / "configs"


def check_run_folder(settings: RunSettings) -> None:
    """Refuse to mix two runs in one folder."""
    folder = settings.folder
    if not settings.resume and (folder / "checkpoints").exists():
        raise SettingsError(
            f"{folder} already holds a run; pass --resume to continue it, or another --exp_name to begin a new one"
        )


def main(argv: list[str]) -> None:
    """Read the settings, then train; torch and DeepSpeed take seconds to import, and wait until the flags are right."""
    settings = parse(TrainSettings, argv, preset_dir=PRESETS, description=__doc__, elsewhere=lisa_flags.TRAINING)
    check_run_folder(settings)
    if settings.device == "cpu":  # read when torch and DeepSpeed are imported
        os.environ.update(CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu")
    wait_without_spinning()
    prepare_determinism(deterministic=settings.deterministic)
    with StopSignals() as stop:
        check_settings(settings)
        with run_lock(settings.folder):
            train(settings, stop)


def check_settings(settings: TrainSettings) -> None:
    """Refuse what the settings name and this machine has not, before anything is written."""
    from anchorseg.training.build import check_weights
    from anchorseg.training.data import check_data_folder
    from utils.files import make_folder
    from utils.machine import refuse_without_gpu, refuse_without_shared_memory
    from utils.metric_sinks import require_wandb

    refuse_without_shared_memory(workers=settings.workers, needed=0 if settings.size in SMALL else 1_000_000_000)
    check_data_folder(settings.dataset_dir)
    if settings.cache_features is not None:
        make_folder(settings.cache_features, "--cache_features")
    if settings.wandb:
        require_wandb()
    check_weights(settings)
    refuse_without_gpu(wanted=settings.device == "auto" and settings.size not in SMALL)


def train(settings: TrainSettings, stop: StopSignals) -> None:
    """Start the processes, build, train."""
    import deepspeed

    from anchorseg.training.build import build_for_training
    from anchorseg.training.trainable import describe_trainable
    from anchorseg.training.trainer import Trainer
    from utils.distributed import COLLECTIVE_TIMEOUT, ensure_single_process_environment, is_main, leave, own_device
    from utils.extensions import settle_locks
    from utils.run_folder import RunFolder, check_shared

    choose_numerics(deterministic=settings.deterministic, tf32=settings.tf32)
    ensure_single_process_environment()
    for sentence in settle_locks() if is_main() else ():
        print(f"warning: {sentence}", file=sys.stderr)
    # DeepSpeed's own barriers name no device; each rank's is the current one.
    warnings.filterwarnings("ignore", message=r"barrier\(\): using the device under current context")
    deepspeed.init_distributed(timeout=COLLECTIVE_TIMEOUT)
    own_device()  # now, for under mpirun DeepSpeed has just found out which it is
    check_shared(settings.folder)
    model, registry = build_for_training(settings)
    if is_main():
        print(render(settings), "\ntrained parameters:\n" + describe_trainable(model), sep="\n")
    trainer = Trainer(settings, model, registry)
    progress = trainer.start()
    try:
        with RunFolder(
            settings.folder, config=to_dict(settings), resume_step=progress.step, wandb=settings.wandb
        ) as run_folder:
            progress = trainer.run(run_folder, progress, stop)
    except SystemExit:  # asked to stop, as every rank was
        leave()
        raise
    if is_main():
        print(farewell(settings, progress))
    leave()


def farewell(settings: TrainSettings, progress: Progress) -> str:
    """Where the result is, how good it is, and what comes next."""
    folder, best = settings.folder, "not validated"
    if progress.best_score is not None:
        best = f"best {settings.select_by} {progress.best_score:.4f} at step {progress.best_step}"
    data = ["--dataset_dir", settings.dataset_dir, "--val_dataset", settings.val_dataset]
    data += ["--custom_data", settings.custom_data] if settings.custom_data else []
    data += ["--output_dir", str(folder / "eval")]
    model = folder / "model"
    pointer = "" if progress.best_score is not None else " --checkpoint latest"
    return (
        f"step {progress.step} is the last; {best}; checkpoints in {folder / 'checkpoints'}. Next:\n"
        f"  python merge_lora_weights.py {shlex.join(['--run', str(folder), '--save_path', str(model)])}{pointer}\n"
        f"  python eval_reasonseg.py {shlex.join(['--version', str(model), *data])}"
    )


if __name__ == "__main__":
    with exit_on_error():
        main(sys.argv[1:])
