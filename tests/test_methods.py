"""Every method trains, resumes, merges and evaluates alike on any number of ranks; minutes: run with -m slow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.objective import Objective
from anchorseg.method.options import LossWeights
from anchorseg.method.tokens import TokenRegistry, TokenStrings
from anchorseg.training.build import config_of
from anchorseg.training.settings import TrainSettings
from anchorseg.training.trainable import set_trainable
from anchorseg.weights.folder import tiny_tokenizer_model
from tests.conftest import make_batch, make_sample
from tests.drawn.layouts import write_layouts
from tests.test_train_ds import ROOT, flags, losses, run, scenes  # noqa: F401
from utils.seeding import seed_torch
from utils.settings import parse

pytestmark = pytest.mark.slow
_SESAME = ("fp_refer_seg", "correct_refer_seg", "neg_refer_seg")
METHODS = {
    "anchorseg": (),
    "sesame": (
        "--head", "lisa", "--num_latents", "0", "--no_position_tables", "--dataset", "||".join(_SESAME),
        "--sample_rates", "12,2,1", "--fp_refer_seg_data", "refcoco",
    ),
    "lisa": ("--head", "lisa", "--num_latents", "0", "--no_position_tables"),
    "read": ("--head", "read", "--num_latents", "0", "--no_position_tables"),
    "pixellm": (
        "--head", "pixellm", "--num_latents", "5", "--language_model", "llava-pixellm", "--mask_model", "pixellm",
        "--overlap_loss",
    ),
    "gsva": ("--head", "gsva", "--num_latents", "0", "--no_position_tables"),
    "nested": ("--bank_length", "random"),
    "anchors": ("--num_anchors", "3", "--anchor_instances", "--anchor_diversity", "0.1"),
}  # fmt: skip
_QWEN3, _QWEN2_5 = ("--language_model", "qwen3-vl"), ("--language_model", "qwen2.5-vl")
_SAM2 = ("--mask_model", "sam2.1-tiny")
BACKBONES = {
    "llava and sam2.1": _SAM2,
    "llava and sam2.1, read": (*_SAM2, *METHODS["read"]),
    "qwen3-vl and sam": _QWEN3,
    "qwen3-vl and sam2.1": (*_QWEN3, *_SAM2),
    "qwen2.5-vl and sam": _QWEN2_5,
    "qwen2.5-vl and sam2.1": (*_QWEN2_5, "--mask_model", "sam2.1-large"),
    "qwen3-vl, lisa": (*_QWEN3, *METHODS["lisa"]),
    "qwen3-vl, read": (*_QWEN3, *METHODS["read"]),
    "qwen3-vl, gsva": (*_QWEN3, *METHODS["gsva"]),
    "qwen3-vl, nested": (*_QWEN3, *METHODS["nested"]),
    "qwen3-vl, fused anchors": (*_QWEN3, "--num_anchors", "3", "--anchor_priors", "fused"),
    "qwen3-vl, valid": (*_QWEN3, "--prior_range", "valid"),
    "qwen3-vl, new rows": (*_QWEN3, "--train_scope", "paper", "--train_embeddings", "new"),
    "qwen3-vl, stored features": (*_QWEN3, *_SAM2, "--train_scope", "paper", "--cache_features", "{folder}/features"),
    "qwen3-vl, recomputed": (*_QWEN3, "--gradient_checkpointing", "on"),
}  # fmt: skip
"""The method on other backbones, and what goes with it on one of them."""


@pytest.mark.parametrize("method", METHODS | BACKBONES)
def test_a_method(scenes, tmp_path, method):  # noqa: F811
    extra = [flag.format(folder=tmp_path) for flag in (METHODS | BACKBONES)[method]]
    if method == "sesame":
        write_layouts(scenes, families=_SESAME, images=8, seed=0)
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
    results: list[dict] = []
    for ranks in (1, 2, 3):
        out = tmp_path / f"eval{ranks}"
        run(
            ["eval_reasonseg.py", "--version", str(model), "--dataset_dir", str(scenes), "--val_dataset",
             "ReasonSeg|val||ReasonSeg|test", "--output_dir", str(out), "--max_new_tokens", "20"],
            ranks=ranks,
        )  # fmt: skip
        results.append(json.loads((out / "results.json").read_text())["benchmarks"])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_two_scenes_by_heart(method):
    flags_of = [flag for flag in METHODS[method] if flag != "--anchor_instances"]
    settings = parse(TrainSettings, ["--preset", "scratch", *flags_of], preset_dir=ROOT / "configs")
    registry = TokenRegistry.create(tiny_tokenizer_model(), TokenStrings.for_bank(*settings.method().token_counts()))
    seed_torch(0)
    model = AnchorSegModel(config_of(settings, registry)).train()
    set_trainable(model, "all")
    samples = [make_sample(0, conversations=1), make_sample(1, (90, 50), conversations=1)]
    batch, objective = make_batch(model, registry, samples), Objective(LossWeights(), model.head)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=2e-3)
    for _ in range(200):
        optimizer.zero_grad()
        objective(model(batch), batch).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.inference_mode():
        masks = model.eval()(batch).segmentation.masks
    ious = [
        float(((found > 0) & truth).sum() / ((found > 0) | truth).sum())
        for found, truth in zip(masks, batch.conversations.masks, strict=True)
    ]
    print(method, [round(iou, 3) for iou in ious])
    assert min(ious) > 0.85
