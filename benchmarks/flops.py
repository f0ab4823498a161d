"""Operations of a training step and of answers, counted at real sizes: `python -m benchmarks.flops --size 7b`.

Counted on the meta device, where nothing is allocated, for the plain way (benchmarks/naive.py) and for this project's,
with and without the stored SAM features of images seen before. Autograd decides what backward does: frozen weights get
no gradient of their own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anchorseg.inference.generation import answer_questions
from anchorseg.inference.prefix import prefill_images
from anchorseg.method.modeling import AnchorSegModel, AnchorSegOutput
from anchorseg.method.objective import Objective
from anchorseg.training.settings import OptimizationSettings
from benchmarks import naive
from benchmarks.counting import Counter, on_meta
from benchmarks.plot import draw_lines
from benchmarks.workload import WordRegistry, answer_ids, build, collate, questions_of, samples
from dataset.batch import Batch
from model.lora import table_parameters

VISION, MASK_ENCODER = "image tokens", "mask encoder"
HEAD, REST = "vocabulary head, both ways", "mask decoder, both ways"
FORWARD, RECOMPUTED, BACKWARD = "language model, forward", "language model, recomputed", "language model, backward"
PARTS = (VISION, FORWARD, RECOMPUTED, BACKWARD, HEAD, MASK_ENCODER, REST)
CONVERSATIONS = (1, 3, 9, 27)
DTYPE = torch.bfloat16

Parts = dict[str, int]
Forward = Callable[[AnchorSegModel, Batch], AnchorSegOutput]


def large_modules(model: AnchorSegModel) -> list[tuple[str, nn.Module]]:
    """The modules that have a row of their own; the vocabulary head, which may be no module, is not among them."""
    language: Any = model.language
    inner = language.network.model
    if hasattr(inner, "visual"):
        vision = [inner.visual]
    else:  # LLaVA's tower is called layer by layer
        vision = [inner.vision_tower.embeddings, *inner.vision_tower.encoder.layers, inner.multi_modal_projector]
    return [
        *((VISION, module) for module in vision),
        (FORWARD, language.adapted),
        (MASK_ENCODER, model.masks.image_encoder),
    ]


@contextmanager
def watched(model: AnchorSegModel, counter: Counter) -> Iterator[list[Tensor]]:
    """Within, operations are counted by module and in the vocabulary head; gives what the head read."""
    language: Any = model.language
    plain, read = language.logits, []

    def logits(hidden: Tensor) -> Tensor:
        read.append(hidden)
        began = counter.total
        result = plain(hidden)
        counter.modules[HEAD] = counter.modules.get(HEAD, 0) + counter.total - began
        return result

    language.logits = logits
    try:
        with counter.watch(large_modules(model)):
            yield read
    finally:
        del language.logits


def _head_backward(model: AnchorSegModel, hidden: Tensor, counter: Counter) -> int:
    """Operations of the vocabulary head's gradients alone: tied tables also read ids, far below."""
    language: Any = model.language
    table = language.get_submodule(language.vocabulary_tables[-1])
    alone = hidden.detach().requires_grad_()
    wanted = [alone, *(weight for weight in table_parameters(table) if weight.requires_grad)]
    logits = language.logits(alone)
    began = counter.total
    torch.autograd.grad(logits, wanted, torch.empty_like(logits))
    return counter.total - began


def step_parts(model: AnchorSegModel, batch: Batch, forward: Forward) -> Parts:
    """Operations of forward, objective and backward, part by part."""
    objective = Objective(OptimizationSettings().loss_weights(), model.head)
    counter = Counter()
    states: list[Tensor] = []
    adapted: Any = model.language.adapted
    catch = adapted.register_forward_hook(lambda *call: states.append(call[2].last_hidden_state))
    with watched(model, counter) as read:
        output = forward(model, batch)
        total = objective(output, batch).total
    catch.remove()
    parts, forwards = dict(counter.modules), counter.total
    # Hooks of a layer itself stay outside its checkpoint.
    inside = [part for layer in adapted.layers for part in layer.children()]
    with counter.watch([(RECOMPUTED, part) for part in inside]):
        # The head alone first, then everything; its hook on the states tells the heads from the language model.
        head = _head_backward(model, read[0], counter)
        began = counter.total
        reached: list[int] = []
        states[0].register_hook(lambda gradient: reached.append(counter.total))
        total.backward()
    model.zero_grad()
    again = counter.modules.get(RECOMPUTED, 0)
    return {
        **parts,
        HEAD: parts[HEAD] + head,
        RECOMPUTED: again,
        BACKWARD: counter.total - reached[0] - again,
        REST: forwards - sum(parts.values()) + reached[0] - began - head,
    }


def naive_step_parts(model: AnchorSegModel, batch: Batch) -> Parts:
    """The same of the plain way."""
    with naive.published(model):
        return step_parts(model, batch, naive.forward)


def training(model: AnchorSegModel, registry: WordRegistry, images: int, conversations: int) -> dict[str, Parts]:
    """Operations of a step over images with some conversations each."""
    chosen = samples(images, conversations)
    plain, shared = (on_meta(collate(model, registry, chosen, share_prefix=share), DTYPE) for share in (False, True))
    return {"naive": naive_step_parts(model, plain), "ours": step_parts(model, shared, AnchorSegModel.forward)}


@torch.inference_mode()
def forced(model: AnchorSegModel, registry: WordRegistry, questions: int) -> dict[str, Parts]:
    """Operations of masks for answers that are in the prompt, as published numbers are made."""
    plain = on_meta(collate(model, registry, samples(1, questions), share_prefix=False), DTYPE)
    with naive.published(model):
        apart = _inference_parts(model, lambda: naive.forward(model, plain), 0)
    return {"naive": apart, "ours": forced_parts(model, registry, questions)}


@torch.inference_mode()
def written(model: AnchorSegModel, registry: WordRegistry, questions: int) -> dict[str, Parts]:
    """Operations of answers that the model writes, all questions about one image."""
    chosen, answer = samples(1, questions, answered=False), answer_ids(registry)
    alone = on_meta(collate(model, registry, samples(1, 1, answered=False), share_prefix=False), DTYPE)
    batch = on_meta(collate(model, registry, chosen, share_prefix=True), DTYPE)
    asked = questions_of(model, registry, chosen[0])

    def apart() -> None:
        naive.one_by_one(model, alone, answer=answer)

    def together() -> None:
        images = prefill_images(model, batch.images, batch.conversations.prefixes(len(batch.images)))
        answer_questions(model, images, asked, [0] * questions, answer=answer)

    # A dictated answer computes no logits; those of its steps are added: a bank is one step here, or a step an id.
    steps = len(answer) + 1
    with naive.published(model):
        one = _inference_parts(model, apart, steps)
    return {
        "naive": {part: questions * operations for part, operations in one.items()},
        "ours": _inference_parts(model, together, questions * (steps - len(model.bank_ids) + 1)),
    }


def _inference_parts(model: AnchorSegModel, call: Callable[[], object], logits: int) -> Parts:
    counter = Counter()
    with watched(model, counter):
        call()
    parts = dict(counter.modules)
    rest = counter.total - sum(parts.values())
    table = model.config.language_config.text_config.vocab_size * model.width
    return {**parts, HEAD: parts.get(HEAD, 0) + 2 * logits * table, REST: rest}


@torch.inference_mode()
def forced_parts(model: AnchorSegModel, registry: WordRegistry, questions: int) -> Parts:
    """Operations of this project's masks for answers that are in the prompt, all questions about one image."""
    shared = on_meta(collate(model, registry, samples(1, questions), share_prefix=True), DTYPE)
    return _inference_parts(model, lambda: model(shared), 0)


def summary(found: dict[str, Parts]) -> dict[str, Any]:
    """Sums and ratios; `cached` is ours without SAM's encoder."""
    plain, ours = (sum(found[name].values()) for name in ("naive", "ours"))
    cached = ours - found["ours"][MASK_ENCODER]
    return {**found, "ratio": ours / plain, "ratio_cached": cached / plain}


def table(title: str, found: dict[str, Parts]) -> str:
    """One line a part, in TFLOP."""
    plain, ours = found["naive"], found["ours"]
    cached = {**ours, MASK_ENCODER: 0}
    rows = {part: [way.get(part, 0) for way in (plain, ours, cached)] for part in PARTS}
    rows["all"] = [sum(way.values()) for way in (plain, ours, cached)]
    lines = [f"{title:<44}{'naive':>10}{'ours':>10}{'cached':>10}{'ours/naive':>12}{'cached':>8}"]
    for name, (first, second, third) in rows.items():
        if first:
            numbers = "".join(f"{value / 1e12:>10.2f}" for value in (first, second, third))
            lines.append(f"{name:<44}{numbers}{second / first:>12.3f}{third / first:>8.3f}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Count, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["tiny", "mid", "7b", "13b"], default="7b")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--conversations", type=int, nargs="+", default=list(CONVERSATIONS), help="of each image")
    parser.add_argument("--plot", type=Path, help="draw operations against conversations as a PNG")
    arguments = parser.parse_args(argv)
    model, registry = build(arguments.size, dtype=DTYPE, device="meta")
    print(f"{arguments.size}: TFLOP; {arguments.images} images a step, 1 image for answers")
    steps, answers = {}, {}
    for number in arguments.conversations:
        steps[number] = training(model, registry, arguments.images, number)
        print(table(f"training step, {number} conversations an image", steps[number]), flush=True)
    model.eval()
    for number in arguments.conversations:
        answers[number] = {"forced": forced(model, registry, number), "written": written(model, registry, number)}
        for protocol, found in answers[number].items():
            print(table(f"{number} questions, {protocol}", found), flush=True)
    if arguments.plot:
        draw(arguments.plot, arguments.size, arguments.images, steps)
    print(
        json.dumps(
            {
                "size": arguments.size,
                "images": arguments.images,
                "training": {number: summary(found) for number, found in steps.items()},
                "answers": {
                    number: {protocol: summary(found) for protocol, found in kinds.items()}
                    for number, kinds in answers.items()
                },
            }
        )
    )


def draw(path: Path, size: str, images: int, steps: dict[int, dict[str, Parts]]) -> None:
    """The picture of docs/performance.md."""
    lines = {
        "naive": [sum(found["naive"].values()) / 1e12 for found in steps.values()],
        "ours": [sum(found["ours"].values()) / 1e12 for found in steps.values()],
        "ours, SAM features stored": [
            (sum(found["ours"].values()) - found["ours"][MASK_ENCODER]) / 1e12 for found in steps.values()
        ],
    }
    title = f"TFLOP of a training step, {size.upper()}, {images} images"
    draw_lines(path, list(steps), lines, title=title, axis="conversations per image")


if __name__ == "__main__":
    main()
