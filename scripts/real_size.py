"""Run a preset at its real size with random weights: `python -m scripts.real_size PHOTO "QUERY" --preset 7b`.

Shows that the whole model is built, moves and decodes a mask at full size on this machine, and in how much memory and
time. The mask itself means nothing, and the tokenizer is the tiny preset's, for no public file is read.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from anchorseg.build import DTYPES, tiny_tokenizer_model
from anchorseg.data import make_collator
from anchorseg.generation import generate
from anchorseg.method import Method
from anchorseg.modeling import AnchorSegModel
from anchorseg.presets import SIZES, preset_config
from anchorseg.pretrained import uninitialised
from anchorseg.tokens import TokenRegistry, TokenStrings
from dataset.images import read_image
from dataset.sample import Conversation, Question, Sample, TargetSlot, Turn
from dataset.templates import evaluation
from utils.errors import exit_on_error
from utils.seeding import seed_torch

LLAMA_PIECES = 32_000
STD = 0.02
Value = TypeVar("Value")


def random_model(size: str, dtype: torch.dtype, device: str = "cpu") -> tuple[AnchorSegModel, TokenRegistry]:
    """A model of a preset's real size: matrices N(0, 0.02), gains 1, biases 0, drawn in place as `dtype`.

    Args:
        size: `tiny`, `7b` or `13b`.
        dtype: of the weights; nothing of another type is allocated on the way.
        device: where the weights are drawn.
    """
    strings = TokenStrings.for_bank(Method().num_latents)
    base = (
        LLAMA_PIECES
        if size != "tiny"
        else len(TokenRegistry.create(tiny_tokenizer_model(), strings)) - len(strings.all)
    )
    added = {token: base + index for index, token in enumerate(strings.all)}
    registry = TokenRegistry(tiny_tokenizer_model(), strings, added)
    config = preset_config(size, Method(), registry)
    seed_torch("real size", size)
    with uninitialised(dtype), torch.device(device):
        model = AnchorSegModel(config)
    for name, parameter in model.named_parameters():
        _draw(name, parameter)
    return model.eval(), registry


@torch.no_grad()
def _draw(name: str, parameter: nn.Parameter) -> None:
    if parameter.ndim > 1:
        parameter.normal_(0.0, STD)
    else:
        parameter.fill_(1.0 if name.endswith("weight") else 0.0)


def question(image: np.ndarray, query: str, *, forced: bool) -> Sample:
    """The evaluation prompt for a phrase, with the answer in it or without; the truth is left empty."""
    before, after = evaluation.ANSWER
    answer = (before, TargetSlot(0), after) if forced else None
    return Sample(
        record="photo",
        image=image,
        conversations=(Conversation((Turn(evaluation.PHRASE.format(text=query), answer),)),),
        masks=np.zeros((1, *image.shape[:2]), dtype=bool),
        questions=(Question(query),),
    )


def _timed(device: str, call: Callable[[], Value]) -> tuple[Value, float]:
    began = time.perf_counter()
    value = call()
    if device == "cuda":
        torch.cuda.synchronize()
    return value, time.perf_counter() - began


def peak_memory(device: str) -> str:
    """Peak memory so far: allocated on the GPU, or resident in this process."""
    if device == "cuda":
        return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB of GPU memory"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB resident"


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    """Build, answer once forced and, if asked, once generated; print sizes, seconds, memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", help="image file")
    parser.add_argument("query", help="a phrase")
    parser.add_argument("--preset", default="7b", choices=sorted(SIZES))
    parser.add_argument("--precision", default="bf16", choices=sorted(DTYPES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--generate", type=int, default=0, metavar="N", help="also let the model write N tokens")
    arguments = parser.parse_args(argv)
    device, dtype = arguments.device, DTYPES[arguments.precision]
    image = read_image(arguments.image)
    (model, registry), seconds = _timed(device, lambda: random_model(arguments.preset, dtype, device))
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"built {count:,} parameters as {arguments.precision} in {seconds:.1f} s; {peak_memory(device)}", flush=True)
    collator = make_collator(model.config, registry, max_length=2048)
    batch = collator([question(image, arguments.query, forced=True)]).to(device, dtype)
    output, seconds = _timed(device, lambda: model(batch))
    mask = output.segmentation.masks[0][0]
    assert mask.isfinite().all(), "mask logits are finite"
    print(
        f"forced: {batch.input_ids.shape[1]} tokens, mask {tuple(mask.shape)} with {int((mask > 0).sum())} pixels, "
        f"in {seconds:.1f} s; {peak_memory(device)}",
        flush=True,
    )
    if arguments.generate:
        batch = collator([question(image, arguments.query, forced=False)]).to(device, dtype)
        written, seconds = _timed(device, lambda: generate(model, batch, max_new_tokens=arguments.generate))
        print(f"generate: {len(written.ids[0])} tokens in {seconds:.1f} s; {peak_memory(device)}")


if __name__ == "__main__":
    with exit_on_error():
        main()
