"""Seconds and memory of questions about images, plain and as it is: `python -m benchmarks.inference --size mid`.

`forced` reads answers that are in the prompt; `written` lets the model write them, one by one and all at once. Written
answers are dictated, so that their length does not depend on weights that know nothing; no logits are computed then.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from anchorseg.inference.generation import answer_questions
from anchorseg.inference.prefix import ImagePrefix, prefill_images
from anchorseg.method.captured import CapturedParts
from anchorseg.method.modeling import AnchorSegModel
from benchmarks import naive
from benchmarks.flops import large_modules
from benchmarks.measure import Cost, as_json, by_part, describe, in_turn
from benchmarks.workload import SIZE_NAMES, WordRegistry, answer_ids, build, collate, questions_of, samples
from dataset.batch import Batch
from dataset.sample import Sample


class Answers:
    """Questions about images, answered in both protocols and both ways.

    Args:
        model: in evaluation mode.
        registry: its tokenizer.
        images: how many.
        questions: about each of them.
    """

    def __init__(self, model: AnchorSegModel, registry: WordRegistry, images: int, questions: int) -> None:
        def collated(chosen: list[Sample], share_prefix: bool) -> Batch:
            weight = model.llava.lm_head.weight
            return collate(model, registry, chosen, share_prefix=share_prefix).to(weight.device, weight.dtype)

        self.model, self.answer = model, answer_ids(registry)
        self._captured: CapturedParts | None = None
        self.device = model.llava.lm_head.weight.device.type
        self.plain, self.shared = (collated(samples(images, questions), share) for share in (False, True))
        self.unread = collated(samples(images, 1, answered=False), True)
        asked = samples(images, questions, answered=False)
        self.ids = [ids for sample in asked for ids in questions_of(model, registry, sample)]
        self.rows = [image for image in range(images) for _ in range(questions)]
        alone = [samples(images, questions, answered=False, only=number) for number in range(questions)]
        self.each = [collated([chosen[image]], False) for image in range(images) for chosen in alone]

    def plain_forced(self) -> Tensor:
        """Low-resolution masks of answers in the prompt, the plain way."""
        with naive.published(self.model):
            return naive.forward(self.model, self.plain).segmentation.low_resolution

    def forced(self) -> Tensor:
        """The same, this project's way."""
        return self.model(self.shared).segmentation.low_resolution

    def plain_written(self) -> Tensor:
        """Low-resolution masks of answers that the model writes, the plain way."""
        with naive.published(self.model):
            found = [naive.one_by_one(self.model, batch, answer=self.answer) for batch in self.each]
        return torch.cat([made.segmentation.low_resolution for made in found])

    def read(self) -> ImagePrefix:
        """The images."""
        return prefill_images(
            self.model, self.unread.images, self.unread.conversations.prefixes(len(self.unread.images))
        )

    def write(self, images: ImagePrefix) -> Tensor:
        """Low-resolution masks of the answers about images that are read."""
        found = answer_questions(self.model, images, self.ids, self.rows, answer=self.answer)
        return found.segmentation.low_resolution

    def written(self) -> Tensor:
        """Low-resolution masks of answers that the model writes, the images read before."""
        return self.write(self.read())

    def written_anew(self) -> Tensor:
        """The same with graphs, when the answer before was another one, so that no draft helps."""
        if self.model.captured is not None:
            self.model.captured.forget_answers()
        return self.written()

    def with_graphs(self, call: Callable[[], Tensor]) -> Tensor:
        """The same as CUDA graphs, which the first calls capture."""
        if self._captured is None:
            self.model.capture_graphs()
            self._captured = self.model.captured
        self.model.captured = self._captured
        try:
            return call()
        finally:
            self.model.captured = None

    @torch.inference_mode()
    def costs(self, repeats: int) -> dict[str, dict[str, Cost]]:
        """Costs of both protocols in all ways, after a check that they give the same masks."""
        costs = {}
        for protocol, plain, ours in (
            ("forced", self.plain_forced, self.forced),
            ("written", self.plain_written, self.written),
        ):
            ways = {"naive": plain, "ours": ours}
            if self.device == "cuda":
                ways["ours, graphs"] = partial(self.with_graphs, ours)
                if protocol == "written":
                    ways["ours, graphs, no draft"] = partial(self.with_graphs, self.written_anew)
                began = time.perf_counter()
                for _ in range(2):
                    ways["ours, graphs"]()
                torch.cuda.synchronize()
                print(f"{protocol}: {time.perf_counter() - began:.2f} s for two first answers with graphs", flush=True)
            wanted = plain()
            for way in list(ways)[1:]:
                difference = float((wanted - ways[way]()).abs().max() / wanted.abs().max())
                print(f"{protocol}, {way}: mask logits differ by at most {difference:.1e} of the largest", flush=True)
            costs[protocol] = in_turn(ways, device=self.device, repeats=repeats)
        return costs

    @torch.inference_mode()
    def parts(self) -> dict[str, dict[str, float]]:
        """Seconds by part: of reading the images, and of writing answers and decoding their masks."""
        modules, images = large_modules(self.model), self.read()
        calls: dict[str, Callable[[], object]] = {"read": self.read, "write": lambda: self.write(images)}
        return {name: by_part(call, modules, self.device) for name, call in calls.items()}


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZE_NAMES, default="mid")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--images", type=int, default=1, help="read and asked about together")
    parser.add_argument("--questions", type=int, default=3, help="about each image")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args(argv)
    dtype = torch.bfloat16 if arguments.device == "cuda" else torch.float32
    model, registry = build(arguments.size, dtype=dtype, device=arguments.device, trains=False)
    answers = Answers(model.eval(), registry, arguments.images, arguments.questions)
    costs = answers.costs(arguments.repeats)
    asked = f"{arguments.size}, {arguments.images} x {arguments.questions} questions"
    for protocol, found in costs.items():
        print(describe(f"{asked}, {protocol}", found, images=arguments.images))
    parts = answers.parts()
    for name, seconds in parts.items():
        print(f"{name}: " + ", ".join(f"{part} {value:.4f} s" for part, value in seconds.items()))
    print(
        json.dumps(
            {
                "size": arguments.size,
                "device": arguments.device,
                "images": arguments.images,
                "questions": arguments.questions,
                "costs": {protocol: as_json(found) for protocol, found in costs.items()},
                "parts": parts,
            }
        )
    )


if __name__ == "__main__":
    main()
