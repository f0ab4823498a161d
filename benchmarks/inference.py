"""Seconds and memory of several questions about an image, plain and as it is: `python -m benchmarks.inference`.

`forced` reads answers that are in the prompt; `written` lets the model write them, one by one and all at once. Written
answers are dictated, so that their length does not depend on weights that know nothing; no logits are computed then.
"""

from __future__ import annotations

import argparse
import json

import torch

from anchorseg.generation import answer_questions
from anchorseg.modeling import AnchorSegModel
from anchorseg.prefix import read_images
from benchmarks import naive
from benchmarks.generation import one_by_one
from benchmarks.measure import Cost, as_json, describe, in_turn
from benchmarks.workload import SIZE_NAMES, WordRegistry, answer_ids, build, collate, questions_of, samples


@torch.inference_mode()
def measure(
    model: AnchorSegModel, registry: WordRegistry, questions: int, *, repeats: int
) -> dict[str, dict[str, Cost]]:
    """Costs of both protocols in both ways, after a check that both give the same masks.

    Args:
        model: in evaluation mode.
        registry: its tokenizer.
        questions: about one image.
        repeats: calls of each way that count.
    """
    weight = model.llava.lm_head.weight
    chosen, answer = samples(1, questions, answered=False), answer_ids(registry)
    plain, shared = (
        collate(model, registry, samples(1, questions), share_prefix=share).to(weight.device, weight.dtype)
        for share in (False, True)
    )
    asked = questions_of(model, registry, chosen[0])
    each = [
        collate(model, registry, samples(1, questions, answered=False, only=number), share_prefix=False).to(
            weight.device, weight.dtype
        )
        for number in range(questions)
    ]

    def plain_forced() -> torch.Tensor:
        with naive.published(model):
            return naive.forward(model, plain).segmentation.low_resolution

    def forced() -> torch.Tensor:
        return model(shared).segmentation.low_resolution

    def plain_written() -> torch.Tensor:
        with naive.published(model):
            return torch.cat([one_by_one(model, batch, answer=answer).segmentation.low_resolution for batch in each])

    def written() -> torch.Tensor:
        images = read_images(model, each[0])
        found = answer_questions(model, images, asked, [0] * questions, answer=answer)
        return found.segmentation.low_resolution

    costs = {}
    for protocol, first, second in (("forced", plain_forced, forced), ("written", plain_written, written)):
        wanted = first()
        difference = float((wanted - second()).abs().max() / wanted.abs().max())
        print(f"{protocol}: mask logits differ by at most {difference:.1e} of the largest", flush=True)
        costs[protocol] = in_turn({"naive": first, "ours": second}, device=weight.device.type, repeats=repeats)
    return costs


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZE_NAMES, default="mid")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--questions", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args(argv)
    dtype = torch.bfloat16 if arguments.device == "cuda" else torch.float32
    model, registry = build(arguments.size, dtype=dtype, device=arguments.device)
    costs = measure(model.eval(), registry, arguments.questions, repeats=arguments.repeats)
    for protocol, found in costs.items():
        print(describe(f"{arguments.size}, {arguments.questions} questions, {protocol}", found, images=1))
    print(
        json.dumps(
            {
                "size": arguments.size,
                "device": arguments.device,
                "questions": arguments.questions,
                "costs": {protocol: as_json(found) for protocol, found in costs.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
