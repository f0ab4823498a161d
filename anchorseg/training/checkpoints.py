"""Checkpoints of a run: DeepSpeed's own files, named by two pointers that change only when a file set is complete.

`checkpoints/step_00000100/` holds what trains (frozen weights are not written), the optimizer, the position, and
checksums; `checkpoints/latest` and `checkpoints/best` hold a folder's name and are replaced in one move, so that a kill
at any moment leaves a loadable checkpoint. `checkpoints/validated.json` says which step was validated last.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deepspeed.runtime.engine import DeepSpeedEngine

from anchorseg.training import checkpoint_files
from utils.distributed import barrier, is_main, world_size
from utils.errors import CheckpointError
from utils.files import read_bytes, read_json, write_json, write_text
from utils.shown import shown

LATEST, BEST = "latest", "best"
VALIDATED = "validated.json"
_TAG = re.compile(r"step_\d{8,}")


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: optimizer steps done.
        validated: step of the last validation, 0 for none.
        best_score: best validation score so far; None for none.
        best_step: its step.
    """

    step: int = 0
    validated: int = 0
    best_score: float | None = None
    best_step: int = 0


class Checkpoints:
    """Writes and finds the checkpoints of one run.

    Args:
        folder: the run's `checkpoints` folder.
        identity: what a checkpoint must share with the run that resumes it, by setting.
        free: settings that may differ from it, which is then said.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], free: Mapping[str, Any]) -> None:
        self.folder = folder
        self._identity = dict(identity)
        self._free = dict(free)

    def save(self, engine: DeepSpeedEngine, step: int) -> None:
        """Write a checkpoint, then move `latest` to it, then remove what no pointer names.

        Raises:
            CheckpointError: if it cannot be written; the previous one is then untouched.
        """
        tag = f"step_{step:08d}"
        state = {"step": step, "world": world_size(), "identity": self._identity, "free": self._free}
        try:
            engine.save_checkpoint(
                str(self.folder), tag=tag, client_state=state, save_latest=False, exclude_frozen_parameters=True
            )
            barrier()
            if is_main():
                checkpoint_files.write_checksums(self.folder / tag)
                write_text(self.folder / LATEST, tag)
                self.remove_old()
        except (OSError, RuntimeError) as error:
            raise CheckpointError(self._not_written(tag, error)) from error
        barrier()

    def _not_written(self, tag: str, error: Exception) -> str:
        before = next((name for name in (LATEST, BEST) if (self.folder / name).is_file()), None)
        whole = f"the previous checkpoint, {before}, is whole" if before else "there is no earlier one"
        reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[0]
        return (
            f"{self.folder / tag} could not be written ({reason:.200}); {whole}. Make room or mend the permissions, "
            "then continue with --resume"
        )

    def validated(self, progress: Progress, score: float | None) -> Progress:
        """Note that the latest checkpoint was validated, and point `best` to it if it is."""
        step = progress.step
        is_best = score is not None and (progress.best_score is None or score > progress.best_score)
        progress = replace(progress, validated=step)
        if is_best:
            progress = replace(progress, best_score=score, best_step=step)
        if is_main():
            if is_best:
                write_text(self.folder / BEST, f"step_{step:08d}")
            write_json(
                self.folder / VALIDATED,
                {"step": step, "best_score": progress.best_score, "best_step": progress.best_step},
            )
            self.remove_old()
        barrier()
        return progress

    def remove_old(self) -> None:
        """Remove checkpoints that no pointer names, and what killed processes left half written."""
        kept = {read_pointer(self.folder, pointer) for pointer in (LATEST, BEST)}
        for path in self.folder.glob("step_*"):
            if path not in kept and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
        for path in [*self.folder.glob(".*.tmp"), *self.folder.parent.glob(".*.tmp")]:
            if path.is_file():
                path.unlink(missing_ok=True)

    def resume(self, engine: DeepSpeedEngine) -> tuple[Progress, list[str]]:
        """Load the latest checkpoint, if any, into the engine; where the run stands, and which settings have changed.

        Raises:
            CheckpointError: if it belongs to other settings or to another number of processes, or is damaged.
        """
        path = read_pointer(self.folder, LATEST)
        if path is None:
            return Progress(), []
        state = read_client_state(path)
        step, world = (_whole(state, name, path) for name in ("step", "world"))
        self.check_identity(path, _mapping(state, "identity", path))
        if world != world_size():
            raise CheckpointError(
                f"{path} was written by {world} process(es) and this run has {world_size()}; optimizer state is split "
                f"by process, so resume with {world}"
            )
        try:
            with checkpoint_files.plain_data_only():
                engine.load_checkpoint(str(self.folder), tag=path.name, load_module_strict=False)
        except Exception as error:  # whole files of another shape raise nearly anything
            raise CheckpointError(
                f"{path} does not fit this run ({type(error).__name__}: {str(error).strip().splitlines()[0]:.160}); "
                f"{other_whole(path)}"
            ) from error
        return self._progress(step, state), self._changed(_mapping(state, "free", path))

    def _progress(self, step: int, state: Mapping[str, Any]) -> Progress:
        file = self.folder / VALIDATED
        if not file.exists():  # earlier versions saved after the validation, and wrote its score into the checkpoint
            before = state.get("progress")
            return Progress(step, step, before.get("best_score")) if isinstance(before, Mapping) else Progress(step)
        found = read_json(file, fail=lambda name, reason: CheckpointError(f"{name}: {reason}"), kind=dict)
        validated, best_score, best_step = (found.get(name) for name in ("step", "best_score", "best_step"))
        numbers = isinstance(validated, int) and isinstance(best_step, int)
        if not numbers or not (best_score is None or isinstance(best_score, int | float)):
            raise CheckpointError(f"{file} is damaged; delete it, and the best score so far is forgotten")
        return Progress(step, min(validated, step), best_score, best_step)

    def check_identity(self, path: Path, saved: Mapping[str, Any]) -> None:
        """Refuse a checkpoint that was written with another value of what must agree.

        Raises:
            CheckpointError: naming the first such setting.
        """
        for key, value in self._identity.items():
            if key in saved and saved[key] != value:
                if key == "frozen_weights":
                    raise CheckpointError(
                        f"{path} was trained on other frozen weights than --version, --vision_tower and "
                        "--vision_pretrained give now; give the same files, or another --exp_name for a new run"
                    )
                raise CheckpointError(
                    f"{path} was written with {key} {shown(saved[key])}, but this run has {shown(value)}; "
                    f"pass --{key} {shown(saved[key])}, or another --exp_name for a new run"
                )

    def _changed(self, saved: Mapping[str, Any]) -> list[str]:
        return [
            f"{name} was {shown(saved[name])} and is {shown(value)}"
            for name, value in self._free.items()
            if name in saved and saved[name] != value
        ]


def read_pointer(folder: Path, pointer: str) -> Path | None:
    """The checkpoint folder that a pointer names, or None where there is no such pointer.

    Raises:
        CheckpointError: if the pointer is no file or names something else.
    """
    path = folder / pointer
    try:
        tag = read_bytes(path, fail=lambda name, reason: CheckpointError(f"{name}: {reason}")).decode("ascii").strip()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        tag = ""
    if not _TAG.fullmatch(tag):
        raise CheckpointError(f"{path} must name a folder such as step_00000100; {_others(folder)}")
    return folder / tag


def _others(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("step_*") if path.is_dir())
    return f"the folder holds {', '.join(names)}: write one of these names into it" if names else "there is none"


def other_whole(path: Path) -> str:
    """Which checkpoint beside a damaged one is whole, as the end of a sentence."""
    for pointer in (LATEST, BEST):
        try:
            other = read_pointer(path.parent, pointer)
            if other is None or other == path:
                continue
            checkpoint_files.check(other)
        except CheckpointError:
            continue
        return f"the checkpoint {other.name}, {pointer}, is whole: write its name into the other pointer's file"
    return "no other checkpoint of the run is whole"


def read_client_state(path: Path) -> dict[str, Any]:
    """What a checkpoint folder says of itself, and its weights; every file of it is checked first.

    Raises:
        CheckpointError: if a file is missing, damaged, or holds more than tensors and plain data.
    """
    # ZeRO stage 3 writes a file for each process, all of them with the same state.
    files = [path / f"{process}mp_rank_00_model_states.pt" for process in ("", "zero_pp_rank_0_")]
    file = next((file for file in files if file.is_file()), files[0])
    try:
        if not file.is_file():
            names = " nor ".join(file.name for file in files)
            raise CheckpointError(f"{path} holds neither {names}: it is not a complete DeepSpeed checkpoint")
        checkpoint_files.check(path)
        return checkpoint_files.load_plain(file)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {other_whole(path)}") from error


def _mapping(state: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    found = state.get(name, {} if name == "free" else None)
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path} does not say its {name}; it is not a checkpoint of this project")
    return found


def _whole(state: Mapping[str, Any], name: str, path: Path) -> int:
    found = state.get(name, _mapping(state, "progress", path).get(name) if "progress" in state else None)
    if not isinstance(found, int):
        raise CheckpointError(f"{path} does not say its {name}; it is not a checkpoint of this project")
    return found
