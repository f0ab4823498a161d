"""Every method trains, resumes, merges and evaluates alike on any number of ranks; minutes: run with -m slow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.test_train_ds import ROOT, flags, losses, run, scenes  # noqa: F401

pytestmark = pytest.mark.slow
METHODS = {
    "lisa": ("--head", "lisa", "--num_latents", "0", "--no_position_tables"),
    "read": ("--head", "read", "--num_latents", "0", "--no_position_tables"),
    "pixellm": (
        "--head", "pixellm", "--num_latents", "5", "--language_model", "llava-pixellm", "--mask_model", "pixellm",
        "--overlap_loss",
    ),
    "gsva": ("--head", "gsva", "--num_latents", "0", "--no_position_tables"),
    "nested": ("--bank_length", "random"),
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_a_method(scenes, tmp_path, method):  # noqa: F811
    extra = METHODS[method]
    run(flags(scenes, tmp_path, "whole", *extra))
    resumed = flags(scenes, tmp_path, "resumed", *extra, "--eval_interval", "2")
    started = subprocess.Popen(
        [sys.executable, *resumed], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    latest = tmp_path / "resumed" / "checkpoints" / "latest"
    while not latest.exists():
        assert started.poll() is None
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert "resuming at step 2" in run([*resumed, "--resume"]).stdout
    assert losses(tmp_path, "resumed") == losses(tmp_path, "whole")

    run(flags(scenes, tmp_path, "one", *extra, "--grad_accumulation_steps", "2"))
    run(flags(scenes, tmp_path, "two", *extra, "--grad_accumulation_steps", "1"), ranks=2)
    assert losses(tmp_path, "two") == pytest.approx(losses(tmp_path, "one"), rel=1e-4)

    model = tmp_path / "model"
    run(["merge_lora_weights.py", "--run", str(tmp_path / "whole"), "--save_path", str(model)])
    assert json.loads((model / "merge.json").read_text())["max_relative_difference"] < 1e-5
    results = []
    for ranks in (1, 2, 3):
        out = tmp_path / f"eval{ranks}"
        run(
            ["eval_reasonseg.py", "--version", str(model), "--dataset_dir", str(scenes), "--val_dataset",
             "ReasonSeg|val||ReasonSeg|test", "--output_dir", str(out), "--max_new_tokens", "20"],
            ranks=ranks,
        )  # fmt: skip
        results.append(json.loads((out / "results.json").read_text())["benchmarks"])
    assert results[0] == results[1] == results[2]
