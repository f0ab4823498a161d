"""Run a preset at its real size with random weights: `python -m scripts.real_size PHOTO "QUERY" --preset 7b`.

Shows that the whole model is built, moves and decodes a mask at full size on this machine, and in how much memory and
time. The mask itself means nothing, and the tokenizer is a small one, for no public file is read. `--mask_model` takes
another mask backbone than SAM.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import TypeVar

from model.backbone_names import LANGUAGE_BACKBONES, MASK_BACKBONES
from utils.errors import exit_on_error

Value = TypeVar("Value")
PRESETS = {
    **{size: ("llava-1.5", size) for size in ("tiny", "7b", "13b")},
    **{
        f"{name}-{size}": (name, size) for name in ("qwen3-vl", "qwen2.5-vl") for size in LANGUAGE_BACKBONES[name].sizes
    },
}
"""Language backbone and size by name: those of configs/, and the small ones of Qwen-VL."""


def main(argv: list[str] | None = None) -> None:
    """Build, answer once forced and, if asked, once generated; print sizes, seconds, memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", help="image file")
    parser.add_argument("query", help="a phrase")
    parser.add_argument("--preset", default="7b", choices=tuple(PRESETS))
    parser.add_argument("--mask_model", default="sam", choices=tuple(MASK_BACKBONES))
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--device", default="auto", help="cuda, cuda:1, cpu; auto: a GPU where there is one")
    parser.add_argument("--generate", type=int, default=0, metavar="N", help="also let the model write N tokens")
    run(parser.parse_args(argv))


def run(arguments: argparse.Namespace) -> None:
    """Build and answer as the command line says."""
    import torch

    from anchorseg.inference.collate import make_collator
    from anchorseg.inference.generation import generate
    from anchorseg.weights.folder import DTYPES
    from dataset.images import read_image
    from scripts.random_weights import question, random_model
    from utils.machine import chosen_device

    image = read_image(arguments.image)
    device, dtype = chosen_device(arguments.device), DTYPES[arguments.precision]
    language, size = PRESETS[arguments.preset]
    backbones = {"language_model": language, "mask_model": arguments.mask_model}
    (model, registry), seconds = _timed(device, lambda: random_model(size, dtype, device, **backbones))
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"built {count:,} parameters as {arguments.precision} in {seconds:.1f} s; {peak_memory(device)}", flush=True)
    collator = make_collator(model.config, registry, max_length=2048)
    batch = collator([question(image, arguments.query, forced=True)]).to(device, dtype)
    with torch.inference_mode():
        output, seconds = _timed(device, lambda: model(batch))
    mask = output.segmentation.masks[0][0]
    assert mask.isfinite().all(), "mask logits are finite"
    print(
        f"forced: {batch.conversations.input_ids.shape[1]} tokens, mask {tuple(mask.shape)} with "
        f"{int((mask > 0).sum())} pixels, in {seconds:.1f} s; {peak_memory(device)}",
        flush=True,
    )
    if arguments.generate:
        batch = collator([question(image, arguments.query, forced=False)]).to(device, dtype)
        with torch.inference_mode():
            written, seconds = _timed(device, lambda: generate(model, batch, max_new_tokens=arguments.generate))
        print(f"generate: {len(written.ids[0])} tokens in {seconds:.1f} s; {peak_memory(device)}")


def _timed(device: str, call: Callable[[], Value]) -> tuple[Value, float]:
    import torch

    began = time.perf_counter()
    value = call()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return value, time.perf_counter() - began


def peak_memory(device: str) -> str:
    """Peak memory so far: allocated on the GPU, or resident in this process."""
    import torch

    if device.startswith("cuda"):
        return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB of GPU memory"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB resident"


if __name__ == "__main__":
    with exit_on_error():
        main()
