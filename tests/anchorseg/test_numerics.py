"""Options of numerics: what DeepSpeed and torch are told, and runs with each of them."""

from __future__ import annotations

import os

import pytest
import torch

from anchorseg.training.engine_config import deepspeed_config
from anchorseg.training.settings import OptimizationSettings
from tests.anchorseg.test_memory_options import command, logged, run, scenes
from utils.numerics import choose_numerics, prepare_determinism

__all__ = ["scenes"]
BF16 = ("--precision", "bf16", "--grad_accumulation_steps", "2", "--no_eval", "--steps_per_epoch", "2")


@pytest.fixture
def torch_as_it_was():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_gradients_are_summed_in_the_type_that_was_chosen():
    for dtype in ("bf16", "fp32"):
        config = deepspeed_config(OptimizationSettings(grad_accum_dtype=dtype), 10)
        assert config["data_types"] == {"grad_accum_dtype": dtype}
    assert "data_types" not in deepspeed_config(OptimizationSettings(), 10, bf16=False)


def test_stage_1_has_no_float32_sums():
    with pytest.raises(ValueError, match="use --zero_stage 2"):
        OptimizationSettings(grad_accum_dtype="fp32", zero_stage=1)


def test_one_process_has_nothing_to_overlap():
    assert deepspeed_config(OptimizationSettings(), 10)["zero_optimization"]["overlap_comm"] is False


def test_torch_is_told(torch_as_it_was):
    choose_numerics(deterministic=True, tf32=True)
    assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
    assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
    choose_numerics(deterministic=False, tf32=False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32


def test_a_workspace_that_was_chosen_is_kept(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    prepare_determinism(deterministic=False)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    prepare_determinism(deterministic=True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_a_bf16_run_with_float32_sums_resumes_exactly_determinism_or_not(scenes, tmp_path):
    run(command(scenes, tmp_path, "fp32", *BF16, "--grad_accum_dtype", "fp32"))
    ours = logged(tmp_path, "fp32")
    assert len(ours) == 2
    stopped = command(scenes, tmp_path, "stopped", *BF16, "--grad_accum_dtype", "fp32", "--deterministic")
    run([*stopped, "--epochs", "1", "--steps_per_epoch", "1"])
    run([*stopped, "--resume"])
    assert logged(tmp_path, "stopped") == ours
