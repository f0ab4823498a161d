"""ZeRO stage 3 on two ranks, every weight divided: stage 2's losses, exact resume, validation, merging."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from anchorseg.training.merging import load_trained

ROOT = Path(__file__).parents[2]
PATIENCE = 300
"""Seconds."""
# Small weights would else stay whole, and those of the miniature are small.
TRAIN = """
import sys

import anchorseg.training.trainer as trainer
import train_ds

usual = trainer.deepspeed_config

def divided(*arguments, **options):
    config = usual(*arguments, **options)
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return config

trainer.deepspeed_config = divided
train_ds.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zero3")
    (folder / "train.py").write_text(TRAIN)
    # Three validation scenes on two ranks: one rank has more to do.
    scenes = [sys.executable, "-m", "scripts.make_scenes", str(folder / "scenes"), "--train", "8", "--val", "3"]
    subprocess.run([*scenes, "--test", "1"], cwd=ROOT, check=True, capture_output=True)
    return folder


def command(place, name, *extra):
    return [
        str(Path(sys.executable).with_name("deepspeed")), "--num_accelerators", "2", "--master_port",
        str(26500 + os.getpid() % 1000), str(place / "train.py"),
        "--preset", "scratch", "--train_scope", "paper", "--dataset_dir", str(place / "scenes"),
        "--log_base_dir", str(place), "--exp_name", name, "--epochs", "1", "--steps_per_epoch", "4",
        "--batch_size", "1", "--print_freq", "1", "--workers", "0", "--warmup_steps", "2", "--lr", "1e-4",
        "--num_classes_per_sample", "2", "--lora_dropout", "0.1", "--eval_interval", "2", *extra,
    ]  # fmt: skip


@contextmanager
def started(arguments, log):
    """A run whose processes end with the block; stage 3 that goes wrong waits for ever."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("wb") as file:
        process = subprocess.Popen(
            arguments, cwd=ROOT, env=environment, start_new_session=True, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(arguments, log):
    with started(arguments, log) as process:
        assert process.wait(timeout=PATIENCE) == 0, log.read_text()[-4000:]


def logged(place, name, tag):
    lines = [json.loads(line) for line in (place / name / "metrics.jsonl").read_text().splitlines()]
    return [line[tag] for line in lines if tag in line]


@pytest.fixture(scope="module")
def divided(place):
    run(command(place, "three", "--zero_stage", "3"), place / "three.log")
    run(command(place, "two", "--zero_stage", "2"), place / "two.log")
    return place


def test_losses_and_scores_are_those_of_stage_2(divided):
    assert logged(divided, "three", "train/loss") == pytest.approx(logged(divided, "two", "train/loss"), rel=1e-5)
    (tag,) = {
        name for line in (divided / "two" / "metrics.jsonl").read_text().splitlines() for name in json.loads(line)
        if name.endswith("giou")
    }  # fmt: skip
    assert logged(divided, "three", tag) == pytest.approx(logged(divided, "two", tag), abs=1e-4)
    assert len(logged(divided, "two", tag)) == 2


@pytest.mark.slow
def test_a_killed_run_resumes_exactly(divided):
    arguments = command(divided, "killed", "--zero_stage", "3")
    latest = divided / "killed" / "checkpoints" / "latest"
    with started(arguments, divided / "killed.log") as process:
        end = time.monotonic() + PATIENCE
        while not latest.exists():
            assert process.poll() is None and time.monotonic() < end, (divided / "killed.log").read_text()[-4000:]
            time.sleep(0.02)
    assert latest.read_text() == "step_00000002"
    run([*arguments, "--resume"], divided / "resumed.log")
    assert logged(divided, "killed", "train/loss") == logged(divided, "three", "train/loss")


def test_merging_joins_the_parts_of_the_weights(divided):
    model = divided / "model"
    arguments = [sys.executable, "merge_lora_weights.py", "--run", str(divided / "three"), "--save_path", str(model)]
    subprocess.run([*arguments, "--checkpoint", "latest"], cwd=ROOT, check=True, capture_output=True)
    assert json.loads((model / "merge.json").read_text())["max_relative_difference"] < 1e-5
    three, two = (dict(load_trained(divided / name, "latest")[0].named_parameters()) for name in ("three", "two"))
    assert three.keys() == two.keys()
    for name, weight in three.items():
        # Four steps at 1e-4: rounding of a vanishing gradient may turn the direction of Adam's step.
        torch.testing.assert_close(weight, two[name], rtol=0, atol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["all", "new"])
def test_a_table_that_the_head_reads_too_is_divided_like_others(place, rows):
    """Qwen3-VL's small sizes have one table, which is read outside of its own module."""
    for stage in ("3", "2"):
        extra = ("--language_model", "qwen3-vl", "--train_embeddings", rows, "--zero_stage", stage)
        run(command(place, f"tied {rows} {stage}", *extra), place / f"tied-{rows}-{stage}.log")
    for tag in ("train/loss", "train/grad_norm"):
        three, two = (logged(place, f"tied {rows} {stage}", tag) for stage in ("3", "2"))
        assert len(three) == 4 and three == pytest.approx(two, rel=1e-5)
