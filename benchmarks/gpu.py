"""Everything that docs/performance.md says of a GPU, measured at once: `python -m benchmarks.gpu --size 7b`.

Training steps, answers, SAM's encoder, kernels, waits, what determinism and float32 sums cost, and peaks beside the
calculated ones; tables in Markdown, then one JSON object. On a CPU (`--size tiny --device cpu`) it runs what needs no
GPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks import flops, memory
from benchmarks.inference import Answers
from benchmarks.measure import Cost, as_json, in_turn, matmul_peak
from benchmarks.train_step import Steps, work_of
from benchmarks.workload import SIZE_NAMES, Rows, build, samples
from utils.cuda_graphs import CapturedCall, CudaRecorder
from utils.numerics import choose_numerics, prepare_determinism

IMAGES, CONVERSATIONS = 2, 3
PARTS = ("answers", "encoder", "train")


def card(device: str, peak: float) -> dict[str, Any]:
    """What the figures were measured on."""
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "transformers": transformers.__version__,
        "matmul_tflops": peak / 1e12,
    }
    print(", ".join(f"{name} {value}" for name, value in found.items()), flush=True)
    return found


def kernels_and_waits(call: Callable[[], object], device: str, *, counts: bool) -> dict[str, int | None]:
    """Kernels that a call starts, graphs' own included, launches by the host, and waits that torch warns of."""
    if device != "cuda" or not counts:
        return {"kernels": None, "launches": None, "waits": None}
    call()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        call()
        torch.cuda.synchronize()
    events = profiled.events() or []
    launches = sum(event.name.startswith(("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")) for event in events)
    kernels = sum(event.device_type == torch.autograd.DeviceType.CUDA for event in events)
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroniz" in str(warning.message) for warning in caught)
    return {"kernels": kernels, "launches": launches, "waits": waits}


def table(title: str, rows: Mapping[str, Cost], extra: Mapping[str, str] | None = None) -> None:
    """Print costs as a table in Markdown; shares are of the first row."""
    first = next(iter(rows.values()))
    print(f"\n| {title} | seconds | of the first | GiB | |\n|---|---|---|---|---|")
    for name, cost in rows.items():
        note = (extra or {}).get(name, "")
        share = f"{cost.seconds / first.seconds:.3f}"
        print(f"| {name} | {cost.seconds:.4f} | {share} | {cost.peak_bytes / 2**30:.2f} | {note} |", flush=True)


def training(size: str, device: str, dtype: torch.dtype, peak: float, repeats: int, *, counts: bool) -> dict[str, Any]:
    """Steps as train_ds.py makes them on a roomy GPU, and on a small one."""
    operations = flops.training(*build(size, dtype=flops.DTYPE, device="meta"), IMAGES, CONVERSATIONS)
    found: dict[str, Any] = {"operations": {name: sum(parts.values()) for name, parts in operations.items()}}
    kinds: tuple[tuple[str, Rows, bool], ...] = (("default", "all", False), ("checkpointing, new rows", "new", True))
    for name, rows, checkpointing in kinds:
        model, registry = build(size, dtype=dtype, device=device, rows=rows)
        steps = Steps(model, registry, samples(IMAGES, CONVERSATIONS), checkpointing=checkpointing)
        costs = steps.costs(repeats)
        shares = {
            way: f"{work_of(way, operations) / cost.seconds / peak:.1%} of the matrix peak"
            for way, cost in costs.items()
        }
        table(f"step, {name}", costs, shares)
        steps.forget_graphs()
        found[name] = {"costs": as_json(costs), **kernels_and_waits(steps.step, device, counts=counts)}
        if name == "default" and counts:
            found["deterministic"] = deterministic_cost(steps, device, repeats)
        del model, steps
        if device == "cuda":
            torch.cuda.empty_cache()
    return found


def deterministic_cost(steps: Steps, device: str, repeats: int) -> dict[str, Any] | str:
    """A step with `--deterministic` beside one without, or what torch says where a kernel is missing."""

    def deterministic() -> None:
        choose_numerics(deterministic=True, tf32=False)
        try:
            steps.step()
        finally:
            choose_numerics(deterministic=False, tf32=False)

    try:
        costs = in_turn({"step": steps.step, "deterministic": deterministic}, device=device, repeats=repeats)
    except RuntimeError as error:
        print(f"--deterministic: {error}")
        return str(error)
    table("determinism", costs)
    return as_json(costs)


@torch.inference_mode()
def answers(
    size: str, device: str, dtype: torch.dtype, repeats: int, numbers: Sequence[int], *, counts: bool
) -> dict[str, Any]:
    """Questions about one image, read or written."""
    began = time.perf_counter()
    model, registry = build(size, dtype=dtype, device=device, trains=False)
    model.eval()
    print(f"\nthe model is there after {time.perf_counter() - began:.1f} s")
    found: dict[str, Any] = {}
    for questions in numbers:
        asked = Answers(model, registry, 1, questions)
        for protocol, costs in asked.costs(repeats).items():
            rates = {way: f"{questions / cost.seconds:.1f} answers a second" for way, cost in costs.items()}
            table(f"{questions} question(s), {protocol}", costs, rates)
            call = getattr(asked, protocol)
            found[f"{questions}, {protocol}"] = {
                "costs": as_json(costs),
                **kernels_and_waits(call, device, counts=counts),
            }
            if device == "cuda":
                found[f"{questions}, {protocol}"]["graphs"] = kernels_and_waits(
                    partial(asked.with_graphs, call), device, counts=counts
                )
    found["parts"] = asked.parts()
    return found


@torch.inference_mode()
def encoder(size: str, device: str, dtype: torch.dtype, repeats: int, *, compiles: bool) -> dict[str, Any]:
    """SAM's encoder by itself."""
    model, _ = build(size, dtype=dtype, device=device, trains=False)
    sam = model.eval().sam
    side = sam.sizes.image_size
    images = {count: torch.randn(count, 3, side, side, device=device, dtype=dtype) for count in (1, 8)}
    ways: dict[str, Callable[[], object]] = {
        f"batch {count}": partial(sam.image_features, image) for count, image in images.items()
    }
    if device == "cuda":
        captured = CapturedCall(lambda pixels: (sam.image_features(pixels),), CudaRecorder())
        ways["batch 1, graph"] = lambda: captured(images[1])
        captured(images[1])
    if compiles:
        compiled: Callable[[Tensor], Tensor] = torch.compile(sam.image_encoder)
        began = time.perf_counter()
        compiled(images[1])
        print(f"compiled in {time.perf_counter() - began:.1f} s")
        ways["batch 1, compiled"] = lambda: compiled(images[1])
    costs = in_turn(ways, device=device, repeats=repeats)
    table("SAM's encoder", costs)
    return as_json(costs)


def calculated(size: str) -> dict[str, int]:
    """Peaks of train_ds.py's settings in bytes, to lay beside `train/peak_memory_gb` of a run on this card."""
    peaks = memory.training(size, memory.batch_maker(IMAGES, CONVERSATIONS))
    for name, peak in peaks.items():
        print(f"calculated for train_ds.py, {name}: {peak.peak / 1e9:.2f} GB")
    return {name: peak.peak for name, peak in peaks.items()}


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZE_NAMES, default="7b")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="also compile SAM's encoder, two minutes more")
    parser.add_argument("--questions", type=int, nargs="+", default=[1, 10], help="about one image")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--no_counts", action="store_true", help="no kernels, waits or determinism: minutes less")
    arguments = parser.parse_args(argv)
    size, device, repeats = arguments.size, arguments.device, arguments.repeats
    counts = not arguments.no_counts
    prepare_determinism(deterministic=True)
    choose_numerics(deterministic=False, tf32=False)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    peak = matmul_peak(device, dtype)
    found: dict[str, Any] = {"size": size, "card": card(device, peak)}
    if "answers" in arguments.parts:
        found["answers"] = answers(size, device, dtype, repeats, arguments.questions, counts=counts)
    if "encoder" in arguments.parts:
        found["encoder"] = encoder(size, device, dtype, repeats, compiles=arguments.compile)
    if "train" in arguments.parts:
        found["training"] = training(size, device, dtype, peak, repeats, counts=counts)
        found["calculated"] = calculated(size)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
