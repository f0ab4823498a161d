"""All eight families in one run on two ranks: killed and resumed exactly, then scored on every kind of benchmark."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataset.registry import FAMILIES, datasets
from tests.test_train_ds import ROOT, losses, run

STEPS = 4
FAMILIES_ON_DISK = [family for family in FAMILIES if family != "custom"]
BENCHMARKS = [
    "ReasonSeg|val", "MultiReasonSeg|val", "refcoco|unc|testA", "refcocog|umd|val", "grefcoco|unc|val",
    "refzom|final|test", "R-refcoco|val", "fprefcocog|berkeley_exclude_unified|val",
]  # fmt: skip


@pytest.fixture(scope="module")
def layouts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("layouts")
    command = [sys.executable, "-m", "scripts.make_scenes", str(folder), "--families", "all", "--images", "4"]
    command += ["--train", "4", "--val", "2", "--test", "2"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def flags(layouts: Path, runs: Path, name: str, *extra: str) -> list[str]:
    return [
        "train_ds.py", "--preset", "scratch", "--dataset_dir", str(layouts), "--index_dir", str(layouts / "index"),
        "--dataset", "||".join(FAMILIES_ON_DISK), "--sample_rates", ",".join("1" for _ in FAMILIES_ON_DISK),
        "--sem_seg_data", "||".join(datasets()["sem_seg"]), "--log_base_dir", str(runs), "--exp_name", name,
        "--epochs", "1", "--steps_per_epoch", str(STEPS), "--batch_size", "2", "--grad_accumulation_steps", "4",
        "--eval_interval", "2", "--val_dataset", "grefcoco|unc|val", "--print_freq", "1", "--workers", "1",
        "--warmup_steps", "2", *extra,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(layouts, tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    run(flags(layouts, runs, "whole"), ranks=2)
    return runs


@pytest.mark.slow
def test_killed_and_resumed_on_the_exact_next_sample(layouts, trained):
    arguments = flags(layouts, trained, "resumed")
    deepspeed = str(Path(sys.executable).with_name("deepspeed"))
    launcher = [deepspeed, "--num_accelerators", "2", "--master_port", str(28500 + os.getpid() % 1000)]
    started = subprocess.Popen(
        [*launcher, *arguments], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    latest = trained / "resumed" / "checkpoints" / "latest"
    while not latest.exists():
        assert started.poll() is None
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    subprocess.run(["pkill", "-KILL", "-f", str(trained / "resumed")], check=False)
    assert latest.read_text() == "step_00000002"
    run([*arguments, "--resume"], ranks=2)
    assert len(losses(trained, "whole")) == STEPS
    assert losses(trained, "resumed") == losses(trained, "whole")


def test_another_mixture_is_not_resumed(layouts, trained):
    done = run([*flags(layouts, trained, "whole"), "--resume", "--refer_seg_data", "refcoco"], check=False)
    assert done.returncode == 2 and "was written with refer_seg_data" in done.stderr


def test_every_benchmark_on_one_two_and_three_ranks(layouts, trained, tmp_path):
    model = tmp_path / "model"
    run(["merge_lora_weights.py", "--run", str(trained / "whole"), "--save_path", str(model)])
    results = []
    for ranks in (1, 2, 3):
        arguments = ["eval_reasonseg.py", "--version", str(model), "--dataset_dir", str(layouts), "--index_dir",
                     str(layouts / "index"), "--val_dataset", "||".join(BENCHMARKS), "--protocol", "all",
                     "--max_new_tokens", "4", "--output_dir", str(tmp_path / str(ranks))]  # fmt: skip
        run(arguments, ranks=ranks)
        results.append(json.loads((tmp_path / str(ranks) / "results.json").read_text())["benchmarks"])
    assert results[0] == results[1] == results[2]
    assert list(results[0]) == BENCHMARKS
    assert {name for name, found in results[0].items() if "symmetric" in found} == {BENCHMARKS[4], BENCHMARKS[5]}
    gres = results[0]["grefcoco|unc|val"]["generate"]
    assert {"giou", "ciou", "giou_rela", "ciou_rela", "n_acc", "t_acc"} <= set(gres)
    assert {row["has_target"] for row in gres["rows"]} == {True, False}
    assert {"p_box_0.5", "p_0.5", "p_0.9"} <= set(results[0]["refcoco|unc|testA"]["forced"])
    assert "see_acc" in results[0]["R-refcoco|val"]["generate"]
