"""A head, a dataset and a mask backbone, one file and one line each, train, merge and evaluate.

The head by itself is trained by test_guides.py, with the commands of a guide.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def program(name, *flags):
    done = subprocess.run(
        [sys.executable, "-m", "tests.throwaway.run", name, *map(str, flags)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


PARTS = ("--head", "mean", "--num_latents", "1", "--temperature", "2", "--mask_model", "conv")


def test_throw_away_parts_train_merge_and_evaluate(tmp_path):
    run, model, scores = tmp_path / "run", tmp_path / "model", tmp_path / "scores"
    program(
        "train_ds", "--preset", "scratch", *PARTS, "--dataset", "squares", "--dataset_dir", tmp_path,
        "--val_dataset", "squares|val", "--log_base_dir", tmp_path, "--exp_name", "run", "--epochs", "1",
        "--steps_per_epoch", "2", "--batch_size", "2", "--print_freq", "1",
    )  # fmt: skip
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    terms = {name.removeprefix("train/") for name in rows[0] if name.endswith(("_bce", "_dice"))}
    assert terms == {"mask_bce", "mask_dice", "soft_bce", "soft_dice"}
    program("merge_lora_weights", "--run", run, "--save_path", model)
    config = json.loads((model / "config.json").read_text())
    assert (config["head"], config["mask_model"]) == ("mean", "conv")
    program(
        "eval_reasonseg", "--version", model, "--dataset_dir", tmp_path, "--val_dataset", "squares|val",
        "--protocol", "both", "--output_dir", scores,
    )  # fmt: skip
    results = json.loads((scores / "results.json").read_text())
    assert results["benchmarks"]["squares|val"].keys() == {"forced", "generate"}


def test_flags_follow_from_the_registries():
    said = program("train_ds", "--help")
    assert "--temperature" in said and "--squares_data" in said
    assert "squares/plain" in program_of_check_data()


def program_of_check_data():
    done = subprocess.run(
        [sys.executable, "-m", "tests.throwaway.run", "scripts.check_data", "tests"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout
