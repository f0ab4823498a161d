"""The models that come with the project: found by name, loaded strictly, and right about scenes nobody has seen."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from anchorseg import AnchorSegPredictor
from anchorseg.training.build import build_for_training
from anchorseg.training.settings import TrainSettings
from anchorseg.weights.shipped import SHIPPED, shipped
from dataset.drawn.writer import make_scene, write_scenes
from dataset.masks import fill_polygon
from train_ds import PRESETS
from utils.metrics import intersection_and_union, iou
from utils.settings import parse

ROOT = Path(__file__).parents[1]


def test_names_are_paths_unless_a_path_has_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {name: shipped(name) for name in SHIPPED} == {name: str(path) for name, path in SHIPPED.items()}
    assert all(Path(shipped(name)).exists() for name in SHIPPED)
    assert shipped("models/mine") == "models/mine"
    (tmp_path / "miniature").mkdir()
    assert shipped("miniature") == "miniature"


def test_the_miniature_answers_unseen_wordings_about_unseen_scenes():
    predictor = AnchorSegPredictor.from_pretrained("miniature", device="cpu")
    overlaps = []
    for number in range(24):
        scene, (query, *_) = make_scene(11, "test", number)
        size = scene.image.shape[:2]
        truth = np.any([fill_polygon(scene.objects[index].polygon, *size) for index in query.targets], axis=0)
        predictor.set_image(scene.image)
        answer = predictor.predict(query.texts[0])
        overlaps.append(iou(*intersection_and_union(answer.mask, truth)) if answer.has_target else 0.0)
    assert np.mean(overlaps) > 0.65


def test_a_run_on_the_shipped_parts_loads_every_tensor_and_learns_at_once(tmp_path):
    write_scenes(tmp_path / "data", counts={"train": 12, "val": 2, "test": 2}, seed=0)
    command = [
        sys.executable, "train_ds.py", "--preset", "tiny", "--version", "tiny-llava", "--vision_pretrained", "tiny-sam",
        "--dataset_dir", str(tmp_path / "data"), "--log_base_dir", str(tmp_path), "--exp_name", "run", "--epochs", "1",
        "--steps_per_epoch", "2", "--cache_features", str(tmp_path / "features"), "--no_eval",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [line for line in done.stdout.splitlines() if "tensors loaded" in line]
    assert len(reports) == 2 and all("0 refused" in line for line in reports)


def test_runs_of_one_seed_begin_alike_whatever_their_heads_are():
    parts = {"preset": "tiny", "version": "tiny-llava", "vision_pretrained": "tiny-sam", "seed": "3"}
    flags = [word for name, value in parts.items() for word in (f"--{name}", value)]
    heads = ([], ["--num_latents", "3"], ["--head", "lisa", "--num_latents", "0"], ["--no_contextual_queries"])
    models = [
        build_for_training(parse(TrainSettings, [*flags, *more], preset_dir=PRESETS, description=""))[0]
        for more in heads
    ]
    states = [model.state_dict() for model in models]
    shared = set.intersection(*(set(state) for state in states))
    drawn = [name for name in shared if "lora_A" in name or "anchor_projection" in name or "token_positions" in name]
    assert len(drawn) > 8 and all(states[0][name].float().std() > 0 for name in drawn if "bias" not in name)
    differing = [name for name in shared for state in states[1:] if not torch.equal(state[name], states[0][name])
                 if state[name].shape == states[0][name].shape]  # fmt: skip
    assert set(differing) <= {"query_bank.positions"}
