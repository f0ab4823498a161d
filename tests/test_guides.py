"""The guides of docs/ do what they say: their commands are run, their code is that of the tests."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import nbclient
import nbformat
import numpy as np
import psutil
import pytest

from dataset.drawn.writer import make_scene
from dataset.readers.labelme import read_labelme
from tests.test_train_ds import losses, scenes  # noqa: F401

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "train.slurm"


def blocks(guide: str, language: str) -> list[str]:
    """The code blocks of a guide."""
    text = (ROOT / "docs" / f"guide_{guide}.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def clone(tmp_path) -> Path:
    """A folder in which the programs can be started, and in which what they write goes nowhere else."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py"))) or path.name == "configs":
            (folder / path.name).symlink_to(path)
    return folder


def environment(**more: str) -> dict[str, str]:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "OMP_NUM_THREADS": "1", "PATH": programs, **more}


def shell(commands: str, folder: Path, **more: str) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], cwd=folder, env=environment(**more), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def photograph(folder: Path, name: str, seed: int) -> None:
    """A picture of two shapes, annotated as LabelMe does it."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    picture = rng.integers(150, 180, (96, 128, 3)).astype(np.uint8)
    left, top = rng.integers(8, 30, 2).tolist()
    car, cup = [(left, top), (left + 30, top + 20)], [(80, top + 30), (110, top + 55)]
    cv2.rectangle(picture, *car, (30, 30, 200), -1)
    cv2.rectangle(picture, *cup, (200, 120, 20), -1)
    cv2.imwrite(str(folder / f"{name}.png"), picture)
    shapes = [
        {"label": label, "points": points, "shape_type": "rectangle"}
        for label, points in (("red car", car), ("the blue cup", cup))
    ]
    (folder / f"{name}.json").write_text(json.dumps({"imagePath": f"{name}.png", "shapes": shapes}))


def test_from_own_photographs_to_scores(clone):
    for number in range(6):
        photograph(clone / ("photos" if number < 4 else "held_out"), f"picture{number}", number)
    shell("".join(blocks("own_photographs", "bash")), clone, STEPS="2")
    assert (clone / "pages" / "custom" / "page_1.html").is_file()
    results = json.loads((clone / "runs" / "photos" / "eval" / "results.json").read_text())
    assert len(results["benchmarks"]["custom"]["forced"]["rows"]) == 4
    assert list((clone / "pictures").rglob("*.png")) and (clone / "models" / "photos" / "config.json").is_file()


def test_the_code_that_extends_is_the_code_that_is_tested():
    folder = ROOT / "tests" / "throwaway"
    assert blocks("extend", "python") == [(folder / f"{name}.py").read_text() for name in ("head", "dataset", "run")]


def test_the_commands_of_extending_run(clone):
    shell("".join(blocks("extend", "bash")), clone)
    row = json.loads((clone / "runs" / "squares" / "metrics.jsonl").read_text().splitlines()[0])
    terms = {name.removeprefix("train/") for name in row if name.endswith(("_bce", "_dice"))}
    assert terms == {"mask_bce", "mask_dice", "soft_bce", "soft_dice"}
    results = json.loads((clone / "runs" / "squares" / "eval" / "results.json").read_text())
    assert results["benchmarks"]["squares|val"].keys() == {"forced", "generate"}


def test_the_slurm_script_is_bash_and_asks_for_a_signal_in_time():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    lines = re.findall(r"^#SBATCH --(\S+)", SCRIPT.read_text(), flags=re.MULTILINE)
    assert "ntasks-per-node=1" in lines and "signal=USR1@600" in lines


@pytest.fixture
def cluster(tmp_path) -> Path:
    """Programs in the place of SLURM's: srun starts a task and writes the number of its process."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    programs = {
        "scontrol": "echo localhost",
        "srun": 'export SLURM_STEP_NUM_TASKS=1\n"$@" &\necho $! > "$STEP"\nwait $!',
    }
    for name, body in programs.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (folder / name).chmod(0o755)
    return folder


def test_a_job_that_runs_out_of_time_is_saved_and_goes_on(scenes, cluster, tmp_path):  # noqa: F811
    step = tmp_path / "step"
    arguments = [
        "--preset", "scratch", "--dataset_dir", str(scenes), "--log_base_dir", str(tmp_path), "--exp_name", "job",
        "--epochs", "1", "--steps_per_epoch", "6", "--batch_size", "1", "--print_freq", "1", "--no_eval",
        "--warmup_steps", "2", "--workers", "0",
    ]  # fmt: skip
    given = {"SLURM_JOB_NODELIST": "node1", "SLURM_JOB_NUM_NODES": "1", "SLURM_GPUS_ON_NODE": "1",
             "SLURM_JOB_ID": str(os.getpid()), "STEP": str(step)}  # fmt: skip
    path = {"PATH": f"{cluster}{os.pathsep}{environment()['PATH']}"}
    job = ["bash", str(SCRIPT), *arguments]
    started = subprocess.Popen(
        job, cwd=ROOT, env=environment(**given, **path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    metrics = tmp_path / "job" / "metrics.jsonl"
    while not metrics.exists() or not metrics.read_text():
        assert started.poll() is None, started.communicate()[0][-3000:]
        time.sleep(0.02)
    task = psutil.Process(int(step.read_text()))
    for process in (*task.children(), task):  # the launcher, which must survive it, and the task, which hands it on
        process.send_signal(signal.SIGUSR1)
    told, _ = started.communicate(timeout=120)
    assert started.returncode != 0 and "SIGUSR1: step" in told, told[-3000:]
    tag = (tmp_path / "job" / "checkpoints" / "latest").read_text()
    assert int(tag[5:]) < 6
    done = subprocess.run(job, cwd=ROOT, env=environment(**given, **path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert f"resuming at step {int(tag[5:])}" in done.stdout
    assert len(losses(tmp_path, "job")) == 6


def test_the_guides_are_listed():
    listed = set(re.findall(r"\]\((guide_\w+\.md)\)", (ROOT / "docs" / "code.md").read_text()))
    assert {"guide_own_photographs.md", "guide_reproduce.md", "guide_extend.md"} <= listed


def test_the_commands_of_every_guide_are_bash():
    for guide in ("own_photographs", "reproduce", "extend"):
        for block in blocks(guide, "bash"):
            done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr


def test_the_guide_of_use(clone):
    """Every block in order, on one drawn scene."""
    scene, _ = make_scene(7, "test", 4)
    cv2.imwrite(str(clone / "photo.png"), cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR))
    (clone / "run.py").write_text("\n".join(blocks("use", "python")))
    installed = """python -c 'import sys; from scripts.command import main; sys.exit(main())' "$@\""""
    commands = f"anchorseg() {{ {installed}; }}\n" + "".join(blocks("use", "bash"))
    shell(f"python run.py > printed.txt\n{commands}", clone)
    printed = (clone / "printed.txt").read_text()
    assert "<SEG>" in printed and printed.count("Answer(") == 3 and str(scene.image.shape[:2]) in printed
    assert read_labelme(clone / "photo.json").image_size == scene.image.shape[:2]
    assert (clone / "answers" / "photo.mask1.png").is_file() and (clone / "answer.png").is_file()
    assert len((clone / "masks" / "answers.jsonl").read_text().splitlines()) == 2
    again = [json.loads(line) for line in (clone / "again" / "answers.jsonl").read_text().splitlines()]
    assert [line["image"] for line in again] == ["answer.png", "photo.png"]
    assert all(len(line["targets"]) == 1 for line in again)


def test_the_notebook_runs_and_shows_what_it_gives():
    notebook = nbformat.read(ROOT / "examples" / "predict.ipynb", as_version=4)
    nbformat.validate(notebook)
    stored = [cell.get("outputs") for cell in notebook.cells]
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    for before, cell in zip(stored, notebook.cells, strict=True):
        assert [sorted(output.get("data", {})) for output in before or ()] == [
            sorted(set(output.get("data", {})) - {"image/png"}) if "image/jpeg" in output.get("data", {})
            else sorted(output.get("data", {}))
            for output in cell.get("outputs", ()) if output.get("name") != "stderr"
        ]  # fmt: skip
