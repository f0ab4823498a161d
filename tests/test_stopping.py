"""Signals: whenever one comes, the step is finished and saved, and the resumed run is the undisturbed one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_train_ds import ROOT, losses, run, scenes  # noqa: F401
from utils.stopping import StopSignals, exit_status

STEPS = 6
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(scenes: Path, runs: Path, name: str, *extra: str) -> list[str]:  # noqa: F811
    return [
        "train_ds.py", "--preset", "scratch", "--dataset_dir", str(scenes), "--log_base_dir", str(runs),
        "--exp_name", name, "--epochs", "1", "--steps_per_epoch", str(STEPS), "--eval_interval", "4",
        "--batch_size", "1", "--print_freq", "1", "--workers", "0", "--warmup_steps", "2",
        "--lora_dropout", "0.1", *extra,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(scenes, tmp_path_factory) -> Path:  # noqa: F811
    runs = tmp_path_factory.mktemp("runs")
    run(command(scenes, runs, "whole"))
    return runs


SEND = """
import os, signal, sys
import train_ds
from anchorseg.training import checkpoints
from anchorseg.training import trainer
from anchorseg.training import build
from deepspeed.runtime.engine import DeepSpeedEngine
moment, number = {moment!r}, {number}
count = [0]
def sending(owner, name, at, behind=False):
    function = getattr(owner, name)
    def wrapped(*arguments, **options):
        count[0] += 1
        if count[0] == at and not behind:
            os.kill(os.getpid(), number)
        result = function(*arguments, **options)
        if count[0] == at and behind:
            os.kill(os.getpid(), number)
        return result
    setattr(owner, name, wrapped)
if moment == "while building":
    sending(build, "choose_trainable", 1)
elif moment == "before the first step":
    sending(trainer.Trainer, "start", 1, behind=True)
elif moment.startswith("forward"):
    sending(DeepSpeedEngine, "forward", int(moment.split()[1]))
elif moment.startswith("backward"):
    sending(DeepSpeedEngine, "backward", int(moment.split()[1]))
elif moment == "while saving":
    sending(DeepSpeedEngine, "save_checkpoint", 1)
elif moment == "behind saving":
    sending(DeepSpeedEngine, "save_checkpoint", 1, behind=True)
elif moment == "in the validation":
    sending(trainer.Trainer, "validate", 1)
train_ds.main(sys.argv[1:])
"""
MOMENTS = {
    "while building": 1, "before the first step": 1, "forward 1": 1, "backward 3": 2, "forward 5": 3, "backward 7": 4,
    "while saving": 5, "behind saving": 5, "in the validation": 5, "forward 12": 6,
}  # fmt: skip
"""Moments of a run with two micro-batches a step, and the step that is saved for each."""


QUICK = ("while saving",)
ALL = [pytest.param(moment, marks=[] if moment in QUICK else pytest.mark.slow) for moment in MOMENTS]


@pytest.mark.parametrize("moment", ALL)
def test_a_signal_at_any_moment_leaves_a_checkpoint_that_resumes_exactly(scenes, whole, tmp_path, moment):  # noqa: F811
    arguments = command(scenes, tmp_path, "run", "--grad_accumulation_steps", "2")
    number = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1][len(moment) % 3]
    program = SEND.format(moment=moment, number=int(number))
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments[1:]], cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == exit_status(number), done.stderr[-3000:]
    step = MOMENTS[moment]
    assert f"{number.name}: step {step} is saved" in done.stdout + done.stderr
    assert (tmp_path / "run" / "checkpoints" / "latest").read_text() == f"step_{step:08d}"
    resumed = run([*arguments, "--resume"])
    assert f"resuming at step {step}" in resumed.stdout
    assert losses(tmp_path, "run") == _reference(scenes, whole)


def _reference(scenes: Path, whole: Path) -> list[float]:  # noqa: F811
    """Losses of the same run undisturbed, made once."""
    if not (whole / "two").exists():
        run(command(scenes, whole, "two", "--grad_accumulation_steps", "2"))
    return losses(whole, "two")


@pytest.mark.slow
def test_one_of_two_ranks_is_told_and_both_stop_at_the_same_step(scenes, tmp_path):  # noqa: F811
    arguments = command(scenes, tmp_path, "two", "--print_freq", "1")
    deepspeed = str(Path(sys.executable).with_name("deepspeed"))
    launcher = [deepspeed, "--num_accelerators", "2", "--master_port", str(27500 + os.getpid() % 1000)]
    started = subprocess.Popen(
        [*launcher, *arguments], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    metrics = tmp_path / "two" / "metrics.jsonl"
    while not metrics.exists() or not metrics.read_text():
        assert started.poll() is None
        time.sleep(0.02)
    found = subprocess.run(["pgrep", "-f", f"local_rank=1.*{tmp_path}"], capture_output=True, text=True, check=True)
    os.kill(int(found.stdout.split()[0]), signal.SIGUSR1)
    told, _ = started.communicate(timeout=120)
    assert started.returncode != 0 and "SIGUSR1: step" in told, told[-3000:]
    tag = (tmp_path / "two" / "checkpoints" / "latest").read_text()
    resumed = run([*arguments, "--resume"], ranks=2)
    assert f"resuming at step {int(tag[5:])}" in resumed.stdout
    run(command(scenes, tmp_path, "undisturbed"), ranks=2)
    assert losses(tmp_path, "two") == losses(tmp_path, "undisturbed")


def test_a_checkpoint_after_the_time_given(scenes, tmp_path):  # noqa: F811
    run(command(scenes, tmp_path, "timed", "--save_minutes", "1e-9", "--no_eval", "--eval_interval", "100"))
    log = (tmp_path / "timed" / "checkpoints" / "latest").read_text()
    assert log == f"step_{STEPS:08d}"


def test_an_error_in_the_validation_loses_nothing(scenes, whole, tmp_path):  # noqa: F811
    arguments = command(scenes, tmp_path, "run")
    program = (
        "import sys, train_ds\nfrom anchorseg.training.trainer import Trainer\n"
        "from utils.errors import DataError, exit_on_error\n"
        "def validate(self, looks=None):\n    raise DataError('export.json', 'it cannot be scored')\n"
        "Trainer.validate = validate\nwith exit_on_error():\n    train_ds.main(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments[1:]], cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 2 and "export.json: it cannot be scored" in done.stderr
    assert (tmp_path / "run" / "checkpoints" / "latest").read_text() == "step_00000004"
    resumed = run([*arguments, "--resume"])
    assert "step 4: ReasonSeg|val" in resumed.stdout + resumed.stderr, "the validation is made up for"
    assert losses(tmp_path, "run") == losses(whole, "whole")
    assert losses(tmp_path, "run", "val/ReasonSeg|val/giou") == losses(whole, "whole", "val/ReasonSeg|val/giou")


def test_signals_are_remembered_and_given_back():
    before = signal.getsignal(signal.SIGUSR1)
    with StopSignals() as stop:
        assert stop.received is None
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGUSR1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGUSR1) == before
    assert exit_status(signal.SIGTERM) == 143
