"""Training through the real DeepSpeed engine: exact repetition, resume, ranks, a kill while saving, bad input."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.ranks import run_ranks
from utils.errors import exit_on_error

ROOT = Path(__file__).parents[1]
STEPS = 4


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    command = [sys.executable, "-m", "scripts.make_scenes", str(folder), "--train", "12", "--val", "3", "--test", "4"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def flags(scenes: Path, runs: Path, name: str, *extra: str) -> list[str]:
    return [
        "train_ds.py", "--preset", "scratch", "--dataset_dir", str(scenes), "--log_base_dir", str(runs),
        "--exp_name", name, "--epochs", "1", "--steps_per_epoch", str(STEPS), "--batch_size", "2",
        "--print_freq", "1", "--workers", "0", "--warmup_steps", "2", "--num_classes_per_sample", "2",
        "--lora_dropout", "0.1", *extra,
    ]  # fmt: skip


def run(
    arguments: list[str], *, ranks: int = 1, check: bool = True, launcher: bool = False
) -> subprocess.CompletedProcess:
    """Start training as users do: python for one process, for several with the deepspeed launcher or without it."""
    # One thread each, so that sums are cut the same way with one rank and with two.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if launcher:
        deepspeed = str(Path(sys.executable).with_name("deepspeed"))
        port = str(29500 + os.getpid() % 1000)
        command = [deepspeed, "--num_accelerators", str(ranks), "--master_port", port, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    elif ranks > 1:
        done = run_ranks(arguments, ranks, OMP_NUM_THREADS="1")
    else:
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def losses(runs: Path, name: str, tag: str = "train/loss") -> list[float]:
    lines = [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]
    return [line[tag] for line in lines if tag in line]


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    run(flags(scenes, runs, "whole"))
    return runs


def test_the_same_command_gives_the_same_losses_to_the_last_bit(scenes, trained):
    run(flags(scenes, trained, "again"))
    assert len(losses(trained, "whole")) == STEPS
    assert losses(trained, "whole") == losses(trained, "again")
    for tag in ("train/grad_norm", "train/ce", "train/mask_dice", "train/t2m_bce", "train/m2t_dice"):
        assert losses(trained, "whole", tag) == losses(trained, "again", tag)


def test_validation_gives_tensorboard_the_same_few_pictures(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "whole" / "tensorboard"))
    events.Reload()
    assert events.Tags()["images"] == [f"val/ReasonSeg|val/{index}" for index in range(3)]
    assert [event.step for event in events.Images("val/ReasonSeg|val/0")] == [STEPS]


def test_resume_in_the_middle_goes_on_exactly(scenes, trained):
    arguments = flags(scenes, trained, "resumed", "--eval_interval", "2")
    started = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    latest = trained / "resumed" / "checkpoints" / "latest"
    while not latest.exists():
        assert started.poll() is None
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert latest.read_text() == "step_00000002"
    done = run([*arguments, "--resume"])
    assert "resuming at step 2" in done.stdout
    assert losses(trained, "resumed") == losses(trained, "whole")


def test_two_ranks_equal_one_rank_with_twice_the_accumulation(scenes, trained):
    run(flags(scenes, trained, "one", "--grad_accumulation_steps", "2"))
    run(flags(scenes, trained, "two", "--grad_accumulation_steps", "1"), ranks=2, launcher=True)
    assert losses(trained, "two") == pytest.approx(losses(trained, "one"), rel=1e-4)
    assert losses(trained, "two", "train/grad_norm") == pytest.approx(
        losses(trained, "one", "train/grad_norm"), rel=1e-3
    )


KILL_WHILE_SAVING = """
import os, signal, sys
import torch
import train_ds
save, count = torch.save, [0]
def killing_save(obj, file, *args, **kwargs):
    count[0] += 1
    save(obj, file, *args, **kwargs)
    if count[0] == {fatal}:
        name = getattr(file, "name", file)
        with open(name, "r+b") as cut:
            cut.truncate(os.path.getsize(name) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
torch.save = killing_save
train_ds.main(sys.argv[1:])
"""


@pytest.mark.parametrize("fatal", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_killed_while_it_writes_a_checkpoint_resumes(scenes, trained, fatal):
    name = f"killed{fatal}"
    arguments = flags(scenes, trained, name, "--eval_interval", "2")
    command = [sys.executable, "-c", KILL_WHILE_SAVING.format(fatal=fatal), *arguments[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    checkpoints = trained / name / "checkpoints"
    assert (checkpoints / "latest").read_text() == "step_00000002"
    assert (checkpoints / "step_00000004").exists()
    run([*arguments, "--resume"])
    assert losses(trained, name) == losses(trained, "whole")
    assert (checkpoints / "latest").read_text() == "step_00000004"


def test_checkpoints_hold_only_what_trains(scenes, trained):
    import torch

    run(flags(scenes, trained, "paper", "--train_scope", "paper"))
    folder = trained / "paper" / "checkpoints"
    state = torch.load(folder / (folder / "latest").read_text() / "mp_rank_00_model_states.pt", weights_only=False)
    names = set(state["module"])
    assert any("lora_A" in name for name in names)
    assert not any("vision_tower" in name or "image_encoder" in name or "mlp.gate_proj" in name for name in names)


def test_merge_and_evaluate_one_and_two_ranks(scenes, trained, tmp_path):
    model = tmp_path / "model"
    done = run(["merge_lora_weights.py", "--run", str(trained / "whole"), "--save_path", str(model)])
    assert "largest difference to the unmerged model" in done.stdout
    assert json.loads((model / "merge.json").read_text())["max_relative_difference"] < 1e-5
    assert "| ReasonSeg\\|val | giou | 0." in (model / "README.md").read_text()
    results = []
    for ranks in (1, 2):
        out = tmp_path / f"eval{ranks}"
        arguments = ["eval_reasonseg.py", "--version", str(model), "--dataset_dir", str(scenes), "--val_dataset",
                     "ReasonSeg|val||ReasonSeg|test", "--output_dir", str(out), "--max_new_tokens", "20"]  # fmt: skip
        if ranks == 1:
            arguments += ["--vis_save_path", str(tmp_path / "pictures")]
        run(arguments, ranks=ranks)
        results.append(json.loads((out / "results.json").read_text())["benchmarks"])
    assert results[0] == results[1]
    assert [len(results[0][name]["forced"]["rows"]) for name in ("ReasonSeg|val", "ReasonSeg|test")] == [3, 4]
    assert set(results[0]["ReasonSeg|val"]) == {"forced", "generate"}
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 14
    refused = run(["merge_lora_weights.py", "--run", str(trained / "whole"), "--save_path", str(model)], check=False)
    assert refused.returncode == 2 and "is not empty" in refused.stderr


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--epoch", "3"], "There is no flag --epoch; did you mean --epochs"),
        (["--lr", "-1"], "--lr"),
        (["--dataset", "reason_seg||vqa"], "--dataset names 2 dataset(s)"),
        (["--seed", str(10**30)], "it must be a whole number at least 0 and at most 9223372036854775807"),
        (["--seed", str(10**400)], "--seed is '1000"),
        (["--lr", "nan"], "--lr is 'nan'; it must be a number above 0"),
        (["--lora_target_modules", "evil"], "--lora_target_modules evil: give one or more of q_proj, k_proj"),
        (["--lora_target_modules", "q_proj,q_proj"], "give one or more of q_proj, k_proj"),
        (
            ["--exp_name", "../elsewhere"],
            "--exp_name '../elsewhere' must be the name of a folder inside --log_base_dir",
        ),
        (["--exp_name", " "], "must be the name of a folder inside --log_base_dir"),
        (["--workers", "100000"], "--workers is '100000'; it must be a whole number at least 0 and at most 256"),
        (["--zero_stage", "0"], "--zero_stage is '0'; it must be one of 1, 2, 3"),
        (["--conv_type", "llava_v1"], "--conv_type is a flag of LISA's; here: nothing: the template is LLaVA-v1's"),
        (["--dataset_dir", "nowhere"], "--dataset_dir nowhere does not exist"),
        (["--preset", "7b"], "--version is needed"),
        (["--preset", "7b", "--version", "llava", "--vision_pretrained", "sam.pth"], "sam.pth does not exist"),
        (["--vision_tower", "clip"], "--vision_tower clip is not used"),
        (["--no_spatial_prior"], "spatial_prior is off, but"),
        (["--preset", "8b"], "There is no preset '8b'"),
    ],
)
def test_bad_settings_end_with_one_sentence(scenes, tmp_path, capsys, extra, sentence):
    import train_ds

    with pytest.raises(SystemExit) as stopped, exit_on_error():
        train_ds.main([*flags(scenes, tmp_path, "bad")[1:], *extra])
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


def test_another_bank_length_is_not_resumed(scenes, trained):
    done = run([*flags(scenes, trained, "whole"), "--resume", "--num_latents", "3"], check=False)
    assert done.returncode == 2 and "was written with num_latents 7, but this run has 3" in done.stderr


def test_a_loss_that_is_not_finite_stops_and_names_step_term_and_images(scenes, tmp_path):
    done = run(flags(scenes, tmp_path, "diverged", "--lr", "1e30", "--warmup_steps", "0"), check=False)
    assert done.returncode == 2
    assert "the loss is not finite in" in done.stderr and ".jpg" in done.stderr and "step " in done.stderr


POISON = """
import sys
import train_ds
from deepspeed.runtime.engine import DeepSpeedEngine
from tests.ranks import run_ranks
from utils.errors import exit_on_error
backward, count = DeepSpeedEngine.backward, [0]
def poisoned(self, loss, *arguments, **options):
    count[0] += 1
    return backward(self, loss * float("nan") if count[0] == 3 else loss, *arguments, **options)
DeepSpeedEngine.backward = poisoned
with exit_on_error():
    train_ds.main(sys.argv[1:])
"""


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_that_are_not_finite_stop_and_name_step_and_images(scenes, tmp_path, precision):
    arguments = flags(scenes, tmp_path, "poisoned", "--precision", precision, "--eval_interval", "2")
    done = subprocess.run(
        [sys.executable, "-c", POISON, *arguments[1:]], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-3000:]
    assert "step 3: the gradients are not finite; images of rank 0: " in done.stderr and ".jpg" in done.stderr
    assert (tmp_path / "poisoned" / "checkpoints" / "latest").read_text() == "step_00000002"


def test_what_a_run_on_own_images_says_next_works(tmp_path):
    """One image with a LabelMe file; its last lines are two commands, which merge and evaluate it."""
    own = tmp_path / "my own images"
    own.mkdir()
    cv2.imwrite(str(own / "a.png"), np.full((48, 64, 3), 90, np.uint8))
    shape = {"label": "cup", "points": [[2, 2], [40, 2], [40, 30]], "shape_type": "polygon"}
    (own / "a.json").write_text(json.dumps({"shapes": [shape]}))
    more = ["--dataset", "custom", "--custom_data", str(own), "--val_dataset", "custom", "--steps_per_epoch", "1"]
    said = run([*flags(own, tmp_path, "own run"), *more]).stdout
    assert "step 1 is the last; best giou 0." in said
    merge, evaluate = (shlex.split(line)[1:] for line in said.splitlines()[-2:])
    assert (merge[0], evaluate[0]) == ("merge_lora_weights.py", "eval_reasonseg.py")
    run(merge)
    run([*evaluate, "--max_new_tokens", "4"])
    results = json.loads((tmp_path / "own run" / "eval" / "results.json").read_text())
    assert results["benchmarks"]["custom"]["forced"]["num_samples"] == 1
