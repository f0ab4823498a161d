"""Damaged model and run folders, odd flags, settings and arguments: a sentence, or the right thing."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from anchorseg import AnchorSegPredictor
from anchorseg.training.checkpoints import LATEST, read_client_state, read_pointer
from anchorseg.training.merging import read_run_settings
from anchorseg.training.settings import TrainSettings
from anchorseg.weights.folder import load_model, save_model
from eval_reasonseg import EvalSettings
from merge_lora_weights import MergeSettings
from tests.conftest import make_model
from tests.fuzz.mutations import ODD, damaged_file, damaged_value, replaced
from tests.fuzz.running import fuzz
from tests.test_train_ds import ROOT, flags
from utils.errors import CheckpointError
from utils.run_folder import RunFolder
from utils.settings import from_dict, parse, render, to_dict


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(*make_model(), folder)
    return folder


@fuzz(40)
def test_model_folders(data, model_folder):
    files = sorted(path for path in model_folder.iterdir() if path.is_file())
    # Nobody here reads these; AutoTokenizer does.
    path = data.draw(
        st.sampled_from([path for path in files if path.name not in ("tokenizer.json", "tokenizer_config.json")])
    )
    with replaced(path, data.draw(damaged_file(path))):
        model, registry = load_model(model_folder)
        registry.decode(registry.encode("<SEG> a cup", -1))
        assert all(parameter.isfinite().all() for parameter in model.parameters())


@fuzz(60)
def test_configurations_of_models(data, model_folder):
    """The values of config.json alone, which decide what is built."""
    path = model_folder / "config.json"
    values = data.draw(damaged_value(json.loads(path.read_text())))
    with replaced(path, json.dumps(values).encode()):
        load_model(model_folder)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of two steps, and what its checkpoint says."""
    root = tmp_path_factory.mktemp("run")
    scenes = [
        sys.executable,
        "-m",
        "scripts.make_scenes",
        str(root / "scenes"),
        "--train",
        "4",
        "--val",
        "1",
        "--test",
        "1",
    ]
    subprocess.run(scenes, cwd=ROOT, check=True, capture_output=True)
    command = flags(root / "scenes", root, "run", "--steps_per_epoch", "2", "--no_eval")
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
    return root / "run", state(root / "run")


def state(folder):
    path = read_pointer(folder / "checkpoints", LATEST)
    if path is None:
        raise CheckpointError("there is no checkpoint")
    found = read_client_state(path)
    tensors = {name: value for name, value in found["module"].items() if isinstance(value, torch.Tensor)}
    return (
        read_run_settings(folder),
        found["step"],
        {name: value.double().sum().item() for name, value in tensors.items()},
    )


@fuzz(30)
def test_run_folders(data, run_folder):
    """Checksums know every change of a checkpoint."""
    folder, wanted = run_folder
    files = sorted(path for path in (folder / "checkpoints").rglob("*") if path.is_file())
    path = data.draw(st.sampled_from([*files, folder / "config.json"]))
    with replaced(path, data.draw(damaged_file(path))):
        settings, *rest = state(folder)
        assert rest == list(wanted[1:])
        if path.name != "config.json":
            assert settings == wanted[0]


@fuzz(30)
def test_files_of_a_run_that_goes_on(data, run_folder, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "going_on"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run_folder[0], folder, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in (".json", ".jsonl"))
    path = data.draw(st.sampled_from(files))
    with replaced(path, data.draw(damaged_file(path))), RunFolder(folder, config={}, resume_step=1) as going_on:
        going_on.log(2, {"a": 1.0})


WORDS = ["0", "-1", "1", "nan", "inf", "-inf", "1e400", "10" * 500, "", " ", "none", "true", "evil", "\ud800", "\0",
         "a,b", "1,2,,3", "||", "../x", "é", "<SEG>", "tiny", "7b", "bf16", "ReasonSeg|val"]  # fmt: skip


@fuzz(150)
def test_flags(data):
    required = {TrainSettings: [], EvalSettings: ["--version", "m"], MergeSettings: ["--run", "r", "--save_path", "s"]}
    kind = data.draw(st.sampled_from(list(required)))
    names = [field.name for field in dataclasses.fields(kind)]
    argv = required[kind]
    for _ in range(data.draw(st.integers(1, 2))):
        name = data.draw(st.sampled_from(names))
        flag = data.draw(st.sampled_from([f"--{name}"] * 5 + [f"--no_{name}", f"--{name}x", name]))
        argv = [*argv, flag, *data.draw(st.lists(st.sampled_from(WORDS), max_size=2, min_size=0))]
    settings = parse(kind, argv, preset_dir=ROOT / "configs" if kind is TrainSettings else None)
    json.dumps(to_dict(settings), allow_nan=False)
    render(settings)


@fuzz(100)
def test_settings_files(data):
    whole = to_dict(TrainSettings(dataset_dir="data"))
    values = data.draw(damaged_value(whole))
    if isinstance(values, dict):
        json.dumps(to_dict(from_dict(TrainSettings, values)), allow_nan=False)


@pytest.fixture(scope="module")
def predictor(model_folder):
    return AnchorSegPredictor.from_pretrained(str(model_folder), device="cpu")


IMAGES = [
    None, 3, "a.jpg", [], [[1]], np.zeros((0, 0, 3), np.uint8), np.zeros((4, 4), np.uint8),
    np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((1, 1, 3), np.uint8), np.zeros((1, 900, 3), np.uint8),
    np.zeros((900, 1, 3), np.uint8), np.zeros((4, 4, 3), np.int64), np.full((4, 4, 3), np.nan),
    np.zeros((3, 4, 4), np.uint8),
    object(),
]  # fmt: skip


@fuzz(25)
def test_predictions(data, predictor):
    session = predictor.session(data.draw(st.sampled_from(IMAGES)))
    query = data.draw(st.one_of(st.text(max_size=40), st.sampled_from([*ODD, "<SEG> " * 30, "[INST] x </s> <image>"])))
    answer = session.predict(query)
    assert answer.mask is None or answer.mask.dtype == bool
