"""The run folder: what it writes, and what is left after a kill and a resume."""

import json
import subprocess
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from utils.environment import describe_environment, git_state
from utils.errors import CheckpointError
from utils.run_folder import RunFolder, read_metrics


def _steps(path: Path) -> list[int]:
    return [row["step"] for row in read_metrics(path / "metrics.jsonl")]


def test_files_of_a_run(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a" / "run", config={"lr": 0.1}) as run:
        run.log(1, {"train/loss": 0.5, "note": "warm"})
        run.log(2, {"train/loss": float("nan"), "val/giou": 0.25})
        assert len((run.path / "metrics.jsonl").read_text().splitlines()) == 2  # flushed before closing
    assert json.loads((run.path / "config.json").read_text()) == {"lr": 0.1}
    rows = read_metrics(run.path / "metrics.jsonl")
    assert rows[0]["step"] == 1 and rows[0]["train/loss"] == 0.5 and rows[0]["note"] == "warm"
    assert rows[1]["train/loss"] == "nan" and rows[1]["val/giou"] == 0.25
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 0.5)]
    assert [(event.step, event.value) for event in events.Scalars("val/giou")] == [(2, 0.25)]


def test_resume_keeps_every_step_once(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        for step in range(1, 6):
            run.log(step, {"train/loss": step / 10})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "train/lo')
    with RunFolder(tmp_path, resume_step=3) as run:
        for step in range(4, 8):
            run.log(step, {"train/loss": step / 10})
    assert _steps(tmp_path) == [1, 2, 3, 4, 5, 6, 7]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(event.step for event in events.Scalars("train/loss")) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("rest", ['{"step": 3, "x', '{"step": 3}', "\x00\x00", '{"step": \n'])
def test_a_line_cut_short_is_dropped_on_reopening(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n' + rest)
    RunFolder(tmp_path).close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_damage_elsewhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(CheckpointError, match="line 2"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_an_earlier_configuration_is_kept(tmp_path: Path) -> None:
    for rate in (0.1, 0.1, 0.2, 0.3):
        RunFolder(tmp_path, config={"lr": rate}).close()
    found = {path.name: json.loads(path.read_text())["lr"] for path in tmp_path.glob("config*.json")}
    assert found == {"config.json": 0.3, "config.1.json": 0.1, "config.2.json": 0.2}


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with RunFolder(tmp_path / "run", config={}) as run:
        run.log(1, {"train/loss": 1.0})
    assert not (tmp_path / "run").exists()


def test_environment_is_complete() -> None:
    environment = json.loads(json.dumps(describe_environment()))
    assert set(environment["versions"]) == {
        *("anchorseg", "python", "torch", "transformers", "peft", "deepspeed", "segment-anything", "numpy", "opencv")
    }
    assert environment["versions"]["torch"] and environment["cpu_count"] and environment["devices"]
    assert environment["command"]


def test_git_state(tmp_path: Path) -> None:
    assert git_state(tmp_path) == {"commit": None, "dirty": None}

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "first")
    state = git_state(tmp_path)
    assert len(state["commit"]) == 40 and state["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path)["dirty"] is True
    (tmp_path / "folder").mkdir()
    assert git_state(tmp_path / "folder") == {"commit": None, "dirty": None}
