"""Where the numbers and pictures of a run go besides metrics.jsonl: TensorBoard and, if asked, Weights & Biases."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from utils.errors import OutputError, SettingsError
from utils.files import write_text

TENSORBOARD_FOLDER = "tensorboard"
WANDB_ID_FILE = "wandb_id"
PROJECT = "anchorseg"
"""Project at Weights & Biases where the environment variable WANDB_PROJECT names none."""


class MetricSink(Protocol):
    """What takes the numbers and pictures of a run; only the main rank has any."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Take finite numbers by tag."""

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Take pictures (H, W, 3) uint8 RGB by tag."""

    def close(self) -> None:
        """Write what is left; may be called twice."""


class TensorBoard:
    """Event files in the run folder.

    Args:
        folder: of the run.
        first_step: the step from which on events of an earlier start are void, or None.
    """

    def __init__(self, folder: Path, first_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only the rank that writes needs it

        self._events = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=first_step)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """See `MetricSink`."""
        for tag, value in values.items():
            self._events.add_scalar(tag, value, global_step=step)
        self._events.flush()

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """See `MetricSink`."""
        for tag, picture in pictures.items():
            self._events.add_image(tag, picture, global_step=step, dataformats="HWC")
        self._events.flush()

    def close(self) -> None:
        """See `MetricSink`."""
        self._events.close()


def require_wandb() -> None:
    """See that Weights & Biases can be used.

    Raises:
        SettingsError: naming what to install.
    """
    spec = find_spec("wandb")
    if spec is None or spec.origin is None:  # a folder wandb/ of earlier runs passes for a package without code
        raise SettingsError("--wandb needs the package wandb, which is not installed: pip install wandb")


class WeightsAndBiases:
    """A run at Weights & Biases, or in files of the run folder with WANDB_MODE=offline; a resumed run is the same one.

    Args:
        folder: of the run.
        config: its settings.

    Raises:
        SettingsError: if the package is not installed, or does not start, as without a login.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        require_wandb()
        import wandb

        self._wandb = wandb
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=folder.name,
                id=self._identity(folder / WANDB_ID_FILE),
                resume="allow",
                dir=str(folder),
                config=dict(config),
            )
        except wandb.errors.Error as error:
            raise SettingsError(
                f"--wandb: Weights & Biases does not start ({error}); log in by `wandb login`, or set "
                "WANDB_MODE=offline"
            ) from error
        # Steps of a resumed run come again, which the package's own step does not allow.
        self._run.define_metric("*", step_metric="step")

    @staticmethod
    def _identity(path: Path) -> str:
        """The name of the run at Weights & Biases, the same whenever the run goes on."""
        try:
            if not path.exists():
                write_text(path, f"{uuid.uuid4().hex}\n")
            return path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise OutputError(f"{path} cannot be used ({error.strerror}); mend that, or leave --wandb out") from error

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """See `MetricSink`."""
        self._run.log({"step": step, **values})

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """See `MetricSink`."""
        self._run.log({"step": step, **{tag: self._wandb.Image(picture) for tag, picture in pictures.items()}})

    def close(self) -> None:
        """See `MetricSink`."""
        self._run.finish()
