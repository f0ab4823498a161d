"""Checkpoints of a run: DeepSpeed's own files, named by two pointers that change only when a file set is complete.

`checkpoints/step_00000100/` holds what trains (frozen weights are not written), the optimiser and the position;
`checkpoints/latest` and `checkpoints/best` hold a folder's name and are replaced in one move, so that a kill at any
moment leaves a loadable checkpoint.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from deepspeed.runtime.engine import DeepSpeedEngine

from utils.distributed import barrier, is_main, world_size
from utils.errors import CheckpointError
from utils.files import write_text

LATEST, BEST = "latest", "best"


@dataclass(frozen=True)
class Progress:
    """Where a run stands: optimiser steps done, processes, and the best validation score so far."""

    step: int
    world: int
    best_score: float | None = None


class Checkpoints:
    """Writes and finds the checkpoints of one run.

    Args:
        folder: the run's `checkpoints` folder.
        identity: settings that a checkpoint must share with the run that resumes it.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        self._identity = identity

    def named(self, pointer: str) -> Path | None:
        """The folder that `latest` or `best` names, or None."""
        path = self.folder / pointer
        return self.folder / path.read_text().strip() if path.is_file() else None

    def save(self, engine: DeepSpeedEngine, progress: Progress, *, is_best: bool) -> None:
        """Write a checkpoint, then move the pointers to it, then remove what neither points to."""
        tag = f"step_{progress.step:08d}"
        state = {"progress": asdict(progress), "identity": self._identity}
        engine.save_checkpoint(
            str(self.folder), tag=tag, client_state=state, save_latest=False, exclude_frozen_parameters=True
        )
        barrier()
        if is_main():
            if is_best:
                write_text(self.folder / BEST, tag)
            write_text(self.folder / LATEST, tag)
            self._remove_old()
        barrier()

    def _remove_old(self) -> None:
        kept = {self.named(LATEST), self.named(BEST)}
        for path in self.folder.glob("step_*"):
            if path not in kept:
                shutil.rmtree(path)

    def resume(self, engine: DeepSpeedEngine) -> Progress:
        """Load the latest checkpoint into the engine.

        Raises:
            CheckpointError: if it belongs to other settings or to another number of processes, or is damaged.
        """
        path = self.named(LATEST)
        assert path is not None, "resume is called only where there is a checkpoint"
        state = read_client_state(path)
        self._check_identity(path, state["identity"])
        progress = Progress(**{field.name: state["progress"][field.name] for field in fields(Progress)})
        if progress.world != world_size():
            raise CheckpointError(
                f"{path} was written by {progress.world} process(es) and this run has {world_size()}; optimiser state "
                f"is split by process, so resume with {progress.world}"
            )
        engine.load_checkpoint(str(self.folder), tag=path.name, load_module_strict=False)
        return progress

    def _check_identity(self, path: Path, saved: dict[str, Any]) -> None:
        for key, value in self._identity.items():
            if saved.get(key) != value:
                raise CheckpointError(
                    f"{path} was written with {key} {saved.get(key)!r}, but this run has {value!r}; "
                    f"pass --{key} {saved.get(key)}, or another --exp_name for a new run"
                )


def read_client_state(path: Path) -> dict[str, Any]:
    """Progress and identity of a checkpoint folder, and the weights that it holds.

    Raises:
        CheckpointError: if the file is missing or cut short.
    """
    import torch

    # ZeRO stage 3 writes a file for each process, all of them with the same progress and identity.
    files = [path / f"{process}mp_rank_00_model_states.pt" for process in ("", "zero_pp_rank_0_")]
    file = next((file for file in files if file.is_file()), files[0])
    if not file.is_file():
        names = " nor ".join(file.name for file in files)
        raise CheckpointError(
            f"{path} holds neither {names}: it is not a complete DeepSpeed checkpoint; use the other of latest and best"
        )
    try:
        return torch.load(file, map_location="cpu", weights_only=False, mmap=True)
    except (RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}); use the other of latest and best") from None
