"""DeepSpeed's side of a run: its configuration, the optimizer, what both refuse, and weights that it has divided."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from anchorseg.training.settings import OptimizationSettings
from utils.distributed import world_size
from utils.errors import SettingsError

if TYPE_CHECKING:
    from deepspeed.runtime.engine import DeepSpeedEngine

BITSANDBYTES = {"adamw8bit": "AdamW8bit", "paged_adamw8bit": "PagedAdamW8bit"}

ROOMY_GB = {
    "tiny": (0, 0), "mini": (0, 0), "2b": (8, 4), "4b": (14, 7), "7b": (22, 7), "8b": (23, 9), "13b": (37, 12)
}  # fmt: skip
"""GPU memory, in GB, from which a step of that size keeps all activations: so much, and so much for each image.

Calculated (benchmarks/memory.py), with room for about twice as many or as long conversations as usual, or for images of
as many tokens as Qwen-VL takes.
"""
TRAINED, BYTES_OF_TRAINED = 310_000_000, 18
"""How many values train there at most, and the memory of each further one: its gradient and the optimizer's state."""


def deepspeed_config(settings: OptimizationSettings, trainable: int, *, bf16: bool = True) -> dict[str, Any]:
    """DeepSpeed's configuration of a run.

    Args:
        settings: of the run.
        trainable: number of trained scalars, which bounds the communication buffers.
        bf16: whether weights and activations are bfloat16.
    """
    bucket = min(trainable, 500_000_000)
    bucket += bucket % 2  # DeepSpeed aligns parts of a bucket to two elements
    several = torch.cuda.is_available() and world_size() > 1
    zero: dict[str, Any] = {
        "stage": settings.zero_stage,
        "contiguous_gradients": True,
        "overlap_comm": several,  # with one GPU there is nothing to overlap, and a second buffer
        "reduce_scatter": True,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
    if settings.offload == "optimizer":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": settings.batch_size,
        "gradient_accumulation_steps": settings.grad_accumulation_steps,
        "gradient_clipping": settings.gradient_clipping,
        "steps_per_print": 2**31,
        "bf16": {"enabled": bf16},
        # DeepSpeed lists the optimizers it was tested with; those of bitsandbytes are not among them.
        "zero_allow_untested_optimizer": settings.optimizer in BITSANDBYTES,
        "zero_optimization": zero,
    }
    if bf16:
        config["data_types"] = {"grad_accum_dtype": settings.grad_accum_dtype}
    return config


def checkpoints_gradients(settings: OptimizationSettings, size: str, trained: int = 0) -> bool:
    """Whether the language model is recomputed in backward; auto compares the GPU's memory with ROOMY_GB.

    Args:
        settings: of the run.
        size: of the language backbone.
        trained: number of trained values.
    """
    if settings.gradient_checkpointing != "auto":
        return settings.gradient_checkpointing == "on"
    if not torch.cuda.is_available():
        return False
    fixed, per_image = ROOMY_GB[size]
    memory = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    further = BYTES_OF_TRAINED * max(trained - TRAINED, 0)
    return memory < (fixed + per_image * settings.batch_size) * 1e9 + further


def build_optimizer(settings: OptimizationSettings, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of a run: torch's AdamW, DeepSpeed's on the CPU where its state is there, or 8-bit.

    Raises:
        SettingsError: if bitsandbytes is asked for and is not installed.
    """
    options: dict[str, Any] = {
        "lr": settings.lr, "betas": (settings.beta1, settings.beta2), "weight_decay": settings.weight_decay
    }  # fmt: skip
    if settings.optimizer in BITSANDBYTES:
        return getattr(_bitsandbytes(settings.optimizer), BITSANDBYTES[settings.optimizer])(parameters, **options)
    if settings.offload == "optimizer":
        from deepspeed.ops.adam import DeepSpeedCPUAdam  # compiled on first use, so only where it is asked for

        return DeepSpeedCPUAdam(parameters, **options)
    return torch.optim.AdamW(parameters, **options)


def _bitsandbytes(name: str) -> Any:
    try:
        return importlib.import_module("bitsandbytes.optim")
    except ImportError as error:
        raise SettingsError(
            f"--optimizer {name} needs bitsandbytes, which cannot be imported ({error}); "
            "run: pip install bitsandbytes, or use --optimizer adamw"
        ) from None


@contextmanager
def whole_weights(engine: DeepSpeedEngine) -> Iterator[None]:
    """All weights on every rank, so that each may call the model, or parts of it, as often as it likes.

    ZeRO stage 3 otherwise gathers them module by module, all ranks together; below it nothing happens. No training
    inside. Uses fields of DeepSpeed 0.19's own.
    """
    import deepspeed

    if engine.zero_optimization_stage() < 3:
        yield
        return
    offload = engine.optimizer.parameter_offload
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters())):
        # The hooks would give the weights back behind each module's call.
        offload.destroy()
        for parameter in engine.module.parameters():
            # Else DeepSpeed takes it to be in use by a module, and would not divide it again.
            parameter.ds_active_sub_modules.clear()
        # Removed above, but kept in its lists.
        offload.forward_hooks, offload.backward_hooks = [], []
        try:
            yield
        finally:
            offload.setup_zero_stage3_hooks()
