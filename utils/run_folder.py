"""The folder of one run: settings, environment, metrics as JSON lines and in the sinks of `utils.metric_sinks`."""

import json
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from utils.distributed import all_gather_objects, is_main
from utils.environment import describe_environment
from utils.errors import CheckpointError, DataError, OutputError
from utils.files import read_bytes, read_json, to_json, write_json, write_text
from utils.metric_sinks import MetricSink, TensorBoard, WeightsAndBiases

METRICS_FILE = "metrics.jsonl"


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Read a `metrics.jsonl`, one dictionary per line, leaving out a last line that a kill has cut short.

    Args:
        path: the file; where it is absent there are no lines.

    Raises:
        CheckpointError: if a line other than the last is not a JSON object.
    """
    path = Path(path)
    if not path.exists():
        return []
    data = read_bytes(path, fail=lambda name, reason: CheckpointError(f"{name}: {reason}"))
    lines = data.decode("utf-8", errors="replace").split("\n")
    whole, rows = lines[:-1], []  # what follows the last line break is empty or cut short
    for number, line in enumerate(whole, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            if number == len(whole):
                break
            raise CheckpointError(
                f"line {number} of {path} is not a JSON object: {line[:80]!r}; correct or delete the line"
            )
        rows.append(row)
    return rows


def check_shared(path: Path) -> None:
    """See that all ranks look at the same folder, for each writes its part of a checkpoint there.

    Raises:
        CheckpointError: on a rank that does not see what the first one wrote.
    """
    token = path / ".shared"
    if is_main():
        path.mkdir(parents=True, exist_ok=True)
        write_text(token, uuid.uuid4().hex)
    (written, *_) = all_gather_objects(token.read_text() if is_main() else "")
    seen = token.read_text() if token.is_file() else ""
    shared = all_gather_objects(seen == written)
    if is_main():
        token.unlink(missing_ok=True)
    if not all(shared):
        raise CheckpointError(
            f"{path.absolute()} is not the same folder for rank(s) "
            f"{', '.join(str(number) for number, same in enumerate(shared) if not same)}; all machines of a run need "
            "one shared folder: give it as --log_base_dir"
        )


def _content(path: Path) -> Any:
    """What a JSON file holds, or None where it is damaged; it is then kept beside the new one."""
    try:
        return read_json(path)
    except DataError:
        return None


class RunFolder:
    """The record of one run, written by the main rank only; on the other ranks every method does nothing.

    Args:
        path: the folder, made if absent.
        config: settings as `utils.settings.to_dict` gives them, written to `config.json`; None writes none.
        resume_step: the step of the checkpoint that the run goes on from. Metrics of later steps are dropped,
            because these steps will be run again; None keeps every line.
        wandb: send metrics and pictures to Weights & Biases as well.

    The folder holds `config.json`, `environment.json`, `metrics.jsonl` and `tensorboard/`. The first two
    describe the latest start; what an earlier start wrote differently stays beside it as `config.1.json`,
    `config.2.json`, ...
    """

    def __init__(
        self,
        path: str | Path,
        *,
        config: Mapping[str, Any] | None = None,
        resume_step: int | None = None,
        wandb: bool = False,
    ) -> None:
        self.path = Path(path)
        self._writes = is_main()
        self._sinks: list[MetricSink] = []
        if not self._writes:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        if config is not None:
            self._write_latest("config", config)
        self._write_latest("environment", describe_environment())
        self._mend_metrics(resume_step)
        self._sinks.append(TensorBoard(self.path, None if resume_step is None else resume_step + 1))
        if wandb:
            self._sinks.append(WeightsAndBiases(self.path, config or {}))

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line of metrics, at once on its way to the disk, and send its numbers to the sinks.

        Args:
            step: optimizer step, from 1; 0 is before training.
            values: by tag, e.g. ``{"train/loss": 0.7, "val/giou": 0.61}``; text, and numbers that are not
                finite, are kept in the JSON line only.

        Raises:
            OutputError: if they cannot be written.
        """
        if not self._writes:
            return
        plain = to_json(values)
        line = {"step": int(step), "time": round(time.time(), 3), **plain}
        path = self.path / METRICS_FILE
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        except OSError as error:
            raise OutputError(
                f"{path} cannot be written ({error.strerror}); mend that, then continue with --resume"
            ) from error
        numbers = {tag: value for tag, value in plain.items() if isinstance(value, int | float)}
        for sink in self._sinks:
            sink.numbers(int(step), numbers)

    def show(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Send pictures (H, W, 3) uint8 RGB by tag to the sinks."""
        for sink in self._sinks:
            sink.pictures(int(step), pictures)

    def close(self) -> None:
        """Close the sinks; may be called twice."""
        for sink in self._sinks:
            sink.close()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_latest(self, stem: str, obj: Mapping[str, Any]) -> None:
        latest, obj = self.path / f"{stem}.json", to_json(obj)
        if latest.exists() and _content(latest) != obj:
            number = 1
            while (kept := self.path / f"{stem}.{number}.json").exists():
                number += 1
            os.replace(latest, kept)
        write_json(latest, obj)

    def _mend_metrics(self, resume_step: int | None) -> None:
        """Drop a line cut short by a kill, and the lines after the step to resume from."""
        path = self.path / METRICS_FILE
        rows = read_metrics(path)
        kept = [row for row in rows if resume_step is None or row.get("step", 0) <= resume_step]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
            write_text(path, text)
