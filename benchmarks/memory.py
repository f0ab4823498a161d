"""Memory of one GPU, calculated at real sizes: `python -m benchmarks.memory --size 7b`.

`--language_model` and `--mask_model` choose other backbones than LLaVA-1.5 and SAM.

Weights and the optimizer's state follow from the parameters and from what DeepSpeed 0.19.8 allocates under ZeRO 2;
activations are counted on the meta device, where nothing is allocated, with what CUDA's kernels keep.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from anchorseg.inference.generation import answer_questions
from anchorseg.inference.prefix import prefill_images
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.objective import Objective
from anchorseg.training.engine_config import BITSANDBYTES, deepspeed_config
from anchorseg.training.settings import ModelSettings, OptimizationSettings, TrainSettings
from benchmarks.counting import Counter, on_meta
from benchmarks.live_bytes import LiveBytes, cuda_kernels
from benchmarks.workload import ALL_SIZES, WordRegistry, answer_ids, collate, empty, preset_size, questions_of, samples
from dataset.batch import Batch
from model.backbone_names import LANGUAGE_BACKBONES, MASK_BACKBONES
from model.quantization import Quantization

DTYPE = torch.bfloat16
GIB = 2**30
CARDS = (24, 40, 80)
"""GiB of memory of common GPUs."""
RESERVE = int(1.5 * GIB)
"""Kept of every GPU for the CUDA context, the libraries' workspaces and fragmentation."""
RANKS = {"13b": 64}
"""Rank of LoRA in configs/, where it is not the default."""
OPTIMISERS = {
    "adamw": {"optimizer": "adamw"},
    "adamw8bit": {"optimizer": "adamw8bit"},
    "adamw, offload": {"offload": "optimizer"},
}
QUANTISATIONS: tuple[Quantization, ...] = ("none", "8bit", "4bit")
SMALLEST_8BIT, BLOCK_8BIT = 4096, 256
"""Of bitsandbytes: values from which a tensor has its moments in 8 bits, and values with one float32 scale."""


@dataclasses.dataclass(frozen=True)
class Activations:
    """Bytes beside weights, optimizer and gradients of earlier micro-batches.

    Attributes:
        kept: for backward, between both passes.
        forward: the most in the forward pass.
        backward: the most in backward, gradients of the micro-batch and the communication buffer included.
    """

    kept: int
    forward: int
    backward: int


def activations(model: AnchorSegModel, batch: Batch, settings: OptimizationSettings) -> Activations:
    """Run a micro-batch under DeepSpeed's handling of gradients: each goes into a buffer as soon as it is there."""
    objective = Objective(settings.loss_weights(), model.head)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    zero = deepspeed_config(settings, sum(parameter.numel() for parameter in trained))["zero_optimization"]
    buffers: list[Tensor] = []

    def to_buffer(parameter: Tensor) -> None:
        if not buffers:
            buffers.append(parameter.new_empty(zero["reduce_bucket_size"]))  # a second one on several GPUs alone
        parameter.grad = None

    hooks = [parameter.register_post_accumulate_grad_hook(to_buffer) for parameter in trained]
    live = LiveBytes(_state(model))
    with live, Counter().watch([]):
        total = objective(model(batch), batch).total
        kept, forward = live.now, live.peak
        live.peak = 0
        total.backward()
    for hook in hooks:
        hook.remove()
    return Activations(kept, forward, live.peak)


def _state(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


@dataclasses.dataclass(frozen=True)
class Trained:
    """Bytes that the trained parameters need beside their weights.

    Attributes:
        optimizer: on the GPU, all the time: float32 weights and the two moments.
        gradients: sums of earlier micro-batches, on the GPU until the optimizer's step.
        reduced: copies of the micro-batch's gradients at the end of backward, while the buffers are still there.
        step: the most in the optimizer's step, the gradients included.
        main_memory: of the machine.
    """

    optimizer: int
    gradients: int
    reduced: int
    step: int
    main_memory: int


def trained_bytes(settings: OptimizationSettings, sizes: list[int]) -> Trained:
    """What DeepSpeed 0.19.8 holds for trained tensors under ZeRO 2 in bf16 on one GPU.

    No type is set for the accumulation of gradients, so that they are summed in bf16. All trained weights are one flat
    tensor to the optimizer, so that bitsandbytes, which leaves tensors below 4096 values in 32 bits, keeps all in 8.

    Args:
        settings: of the run.
        sizes: number of scalars of each trained tensor.
    """
    count, largest = sum(sizes) + sum(sizes) % 2, max(sizes)
    norm = 8 * largest  # norms are taken in float64, a tensor at a time
    if settings.offload == "optimizer":
        # Main memory: float32 weights, gradients and two moments, bf16 weights and gradients, one bf16 buffer.
        return Trained(2 * largest, 0, norm, 0, 20 * count + 2 * largest)
    moments = 8 * count
    if settings.optimizer in BITSANDBYTES and count >= SMALLEST_8BIT:
        moments = 2 * (count + 4 * -(-count // BLOCK_8BIT))
    gradients = 2 * count if settings.grad_accumulation_steps > 1 else 0
    # Gradients in bf16, the same flat, and in float32; these alone beside AdamW's square root are as many bytes.
    return Trained(4 * count + moments, gradients, 2 * count, max(8 * count, 2 * count + norm), 0)


@dataclasses.dataclass(frozen=True)
class Peak:
    """Bytes of one GPU in training.

    Attributes:
        weights: all of them, in bf16.
        optimizer: see `Trained`.
        kept: activations that wait for backward.
        forward: the most in forward passes, everything included; `backward` and `step` alike.
        backward: see `forward`.
        step: see `forward`.
        main_memory: of the machine.
    """

    weights: int
    optimizer: int
    kept: int
    forward: int
    backward: int
    step: int
    main_memory: int

    @property
    def peak(self) -> int:
        """The most of all phases."""
        return max(self.forward, self.backward, self.step)


def peak_of(model: AnchorSegModel, settings: OptimizationSettings, counted: Activations) -> Peak:
    """Phases of a step with these settings."""
    sizes = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    bucket = deepspeed_config(settings, sum(sizes))["zero_optimization"]["reduce_bucket_size"]
    trained, weights = trained_bytes(settings, sizes), weight_bytes(model, "none")
    held = weights + trained.optimizer
    return Peak(
        weights=weights,
        optimizer=trained.optimizer,
        kept=counted.kept,
        forward=held + trained.gradients + counted.forward,
        backward=held + trained.gradients + max(counted.backward, bucket * DTYPE.itemsize + trained.reduced),
        step=held + trained.step,
        main_memory=trained.main_memory,
    )


def weight_bytes(model: AnchorSegModel, quantization: Quantization) -> int:
    """Bytes of weights and buffers, the linear layers that `model.quantization` quantizes in 8 or 4 bits."""
    total = sum(tensor.numel() * tensor.element_size() for tensor in _state(model))
    if quantization == "none":
        return total
    kept_parts = model.kept_unquantized
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not any(
            name == kept or name.startswith(f"{kept}.") for kept in kept_parts
        ):
            weight = module.weight
            total += _quantized(weight, quantization) - weight.numel() * weight.element_size()
    return total


def _quantized(weight: Tensor, quantization: Quantization) -> int:
    """8 bits: a float32 scale a row. 4 bits: a byte for 64 weights, and of these bytes a float32 for 256."""
    if quantization == "8bit":
        return weight.numel() + 4 * weight.shape[0]
    blocks = -(-weight.numel() // 64)
    return weight.numel() // 2 + blocks + 4 * -(-blocks // 256)


def build_meta(settings: ModelSettings, size: str, *, trains: bool) -> tuple[AnchorSegModel, WordRegistry]:
    """A model on the meta device in bf16, with what the settings train, or as it is saved."""
    model, registry = empty(settings, size, dtype=DTYPE, device="meta", trains=trains)
    return model.train(trains), registry


def settings_of(size: str, **options: Any) -> TrainSettings:
    """The recipe of a size, dropout included."""
    return TrainSettings(size=preset_size(size), lora_r=RANKS.get(size, 8), **options)


def training(
    size: str, make_batch: Callable[[AnchorSegModel, WordRegistry], Batch], **backbones: Any
) -> dict[str, Peak]:
    """Peaks of all settings; `backbones` by the names of their settings."""
    found = {}
    for rows in ("all", "new"):
        settings = settings_of(size, train_embeddings=rows, **backbones)
        model, registry = build_meta(settings, size, trains=True)
        batch = make_batch(model, registry)
        for checkpointing in ("off", "on"):
            if checkpointing == "on":
                adapted: Any = model.language.adapted
                adapted.activation_checkpointing_enable({"use_reentrant": False})
            with cuda_kernels():
                counted = activations(model, batch, settings)
            for name, options in OPTIMISERS.items():
                chosen = settings_of(size, train_embeddings=rows, **options, **backbones)
                found[f"{rows}, {name}, checkpointing {checkpointing}"] = peak_of(model, chosen, counted)
    return found


@torch.inference_mode()
def inference(size: str, questions: int, height: int, width: int, **backbones: Any) -> dict[str, dict[str, int]]:
    """Weights, what an image that was read holds, and the most while it is read and questions are answered."""
    model, registry = build_meta(settings_of(size, **backbones), size, trains=False)
    asked = samples(1, questions, height=height, width=width, answered=False)
    batch = on_meta(collate(model, registry, asked, share_prefix=True), DTYPE)
    live = LiveBytes(_state(model))
    with cuda_kernels(), live, Counter().watch([]):
        read = prefill_images(model, batch.images, batch.conversations.prefixes(len(batch.images)))
        prefix = live.now
        ids = questions_of(model, registry, asked[0])
        answer_questions(model, read, ids, [0] * questions, answer=answer_ids(registry))
    weights = {name: weight_bytes(model, name) for name in QUANTISATIONS}
    return {name: {"weights": held, "prefix": prefix, "peak": held + live.peak} for name, held in weights.items()}


def fits(peak: int) -> int | None:
    """The smallest of CARDS, in GiB, that holds the peak beside RESERVE; None where none does."""
    return next((card for card in CARDS if peak + RESERVE <= card * GIB), None)


def _row(name: str, values: list[int], peak: int) -> str:
    numbers = "".join(f"{value / 1e9:>10.2f}" for value in values)
    return f"{name:<36}{numbers}{fits(peak) or '-':>6}"


def _title(name: str, columns: list[str]) -> str:
    return f"{name:<36}" + "".join(f"{column:>10}" for column in columns) + f"{'fits':>6}"


def batch_maker(
    images: int, conversations: int, height: int = 480, width: int = 640
) -> Callable[[AnchorSegModel, WordRegistry], Batch]:
    """Makes a micro-batch for a model."""

    def make(model: AnchorSegModel, registry: WordRegistry) -> Batch:
        chosen = samples(images, conversations, height=height, width=width)
        return on_meta(collate(model, registry, chosen, share_prefix=True), DTYPE)

    return make


def main(argv: list[str] | None = None) -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=ALL_SIZES, default="7b")
    parser.add_argument("--language_model", choices=tuple(LANGUAGE_BACKBONES), default="llava-1.5")
    parser.add_argument("--mask_model", choices=tuple(MASK_BACKBONES), default="sam")
    parser.add_argument("--images", type=int, default=2, help="of a micro-batch")
    parser.add_argument("--conversations", type=int, default=3, help="of each image, and questions of inference")
    parser.add_argument("--height", type=int, default=480, help="of the images")
    parser.add_argument("--width", type=int, default=640, help="of the images")
    arguments = parser.parse_args(argv)
    height, width = arguments.height, arguments.width
    backbones = {"language_model": arguments.language_model, "mask_model": arguments.mask_model}
    found = training(arguments.size, batch_maker(arguments.images, arguments.conversations, height, width), **backbones)
    print(
        f"{', '.join([*backbones.values(), arguments.size])}: calculated memory of one GPU in 10^9 bytes; "
        "nothing was measured on a GPU"
    )
    columns = ["weights", "optimizer", "kept", "forward", "backward", "step", "peak", "main"]
    print(_title("training", columns))
    for name, peak in found.items():
        print(_row(name, [*dataclasses.astuple(peak)[:6], peak.peak, peak.main_memory], peak.peak))
    answers = inference(arguments.size, arguments.conversations, height, width, **backbones)
    print(_title("inference", ["weights", "prefix", "peak"]))
    for kind, values in answers.items():
        print(_row("bf16" if kind == "none" else kind, list(values.values()), values["peak"]))
    rows = {
        name: {**dataclasses.asdict(peak), "peak": peak.peak, "fits": fits(peak.peak)} for name, peak in found.items()
    }
    print(json.dumps({**vars(arguments), "training": rows, "inference": answers}))


if __name__ == "__main__":
    main()
