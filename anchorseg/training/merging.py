"""Merging: a run's checkpoint to a plain model folder, with the proof that nothing changed."""

from __future__ import annotations

import copy
import io
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

from anchorseg.evaluation.queries import given_answer
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.tokens import TokenRegistry
from anchorseg.training.build import build_for_training
from anchorseg.training.checkpoint_files import plain_data_only
from anchorseg.training.checkpoints import other_whole, read_client_state, read_pointer
from anchorseg.training.settings import TrainSettings
from anchorseg.weights.card import TrainingRecord
from dataset.batch import Batch
from model.lora import merge_lora
from utils.errors import CheckpointError
from utils.files import read_json
from utils.run_folder import METRICS_FILE, read_metrics
from utils.seeding import generator_for
from utils.settings import from_dict, to_dict


def read_run_settings(run: Path) -> TrainSettings:
    """Settings that a run folder was trained with.

    Raises:
        CheckpointError: if the folder is not a run.
    """
    path = run / "config.json"
    try:
        values = read_json(path, fail=lambda name, reason: CheckpointError(f"{name}: {reason}"), kind=dict)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; give a run folder, such as runs/EXP_NAME") from None
    if isinstance(values.get("gradient_checkpointing"), bool):  # a switch in earlier runs
        values["gradient_checkpointing"] = "on" if values["gradient_checkpointing"] else "off"
    return from_dict(TrainSettings, values, source=f"In {path}, ")


def load_trained(run: Path, pointer: str) -> tuple[AnchorSegModel, TokenRegistry]:
    """The model of a run as it was trained: base weights built again, trained weights from the checkpoint.

    Args:
        run: the run folder.
        pointer: `best` or `latest`.

    Raises:
        CheckpointError: if the checkpoint is incomplete or holds other tensors than the model trains.
    """
    settings = read_run_settings(run)
    folder = run / "checkpoints"
    path = read_pointer(folder, pointer)
    if path is None:
        raise CheckpointError(
            f"{folder / pointer} does not exist; the run has no {pointer} checkpoint. "
            "A run that was not validated has only its latest: --checkpoint latest"
        )
    read_client_state(path)
    model, registry = build_for_training(replace(settings, gradient_checkpointing="off", compile_sam=False))
    trained = _trained_weights(folder, path.name)
    own = model.state_dict()
    wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    wrong = sorted(name for name in wanted if name not in trained or trained[name].shape != own[name].shape)
    unknown = sorted(set(trained) - set(own))
    if wrong or unknown:
        raise CheckpointError(
            f"{path}: {len(wrong)} trained tensor(s) missing or of another shape, {len(unknown)} unknown: "
            f"{', '.join((wrong + unknown)[:5])}; config.json and checkpoint are of different runs"
        )
    model.load_state_dict(trained, strict=False)
    return model.eval(), registry


def training_record(run: Path, pointer: str) -> TrainingRecord:
    """What a run tells of one of its checkpoints: settings, commit, and the scores of the validation at its step.

    Args:
        run: the run folder.
        pointer: `best` or `latest`, which is there.

    Raises:
        CheckpointError: if a file of the run is damaged.
    """

    def damaged(path: Path, reason: str) -> CheckpointError:
        return CheckpointError(f"{path}: {reason}; correct it, or move it away")

    path = read_pointer(run / "checkpoints", pointer)
    step = int(path.name.rpartition("_")[2]) if path else 0
    try:
        environment = read_json(run / "environment.json", fail=damaged, kind=dict)
    except FileNotFoundError:
        environment = {}
    git = environment.get("git")
    scores = {
        tag.removeprefix("val/"): float(value)
        for row in read_metrics(run / METRICS_FILE)
        if row.get("step") == step
        for tag, value in row.items()
        if tag.startswith("val/") and isinstance(value, int | float)
    }
    return TrainingRecord(
        settings=to_dict(read_run_settings(run)),
        commit=git.get("commit") if isinstance(git, dict) else None,
        step=step,
        scores=scores,
    )


def _trained_weights(folder: Path, tag: str) -> dict[str, torch.Tensor]:
    """The trained weights of a checkpoint in float32, by name."""
    try:
        # DeepSpeed prints how it goes about it.
        with plain_data_only(), redirect_stdout(io.StringIO()):
            found: dict[str, torch.Tensor] = get_fp32_state_dict_from_zero_checkpoint(
                str(folder), tag=tag, exclude_frozen_parameters=True
            )
    except Exception as error:  # whole files that do not belong together raise nearly anything
        raise CheckpointError(
            f"{folder / tag} cannot be joined ({type(error).__name__}: {str(error).strip()[:160]}); its files are not "
            f"of one checkpoint. {other_whole(folder / tag)}"
        ) from error
    return found


def probe_batch(model: AnchorSegModel, registry: TokenRegistry) -> Batch:
    """A fixed image of noise and a question with one target, to compare two models on."""
    rng = generator_for("merge probe")
    image = rng.integers(0, 256, (96, 128, 3)).astype(np.uint8)
    return given_answer(model, registry, image, "the object")


@torch.inference_mode()
def max_difference(first: AnchorSegModel, second: AnchorSegModel, registry: TokenRegistry) -> tuple[float, float]:
    """Largest difference of two models on the probe over logits and masks, absolute and relative to the maximum."""
    batch = probe_batch(first, registry)
    outputs = [first(batch), second(batch)]
    pairs = [
        [output.logits.float() for output in outputs],
        [output.segmentation.low_resolution.float() for output in outputs],
    ]
    absolute = [float((a - b).abs().max()) for a, b in pairs]
    return max(absolute), max(value / float(a.abs().max()) for value, (a, _) in zip(absolute, pairs, strict=True))


def merged_copy(model: AnchorSegModel) -> AnchorSegModel:
    """The model with every adapter folded into its weight; the original is left as it is."""
    merged = copy.deepcopy(model)
    merge_lora(merged)
    return merged.requires_grad_(False)
