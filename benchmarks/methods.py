"""The methods of the paper's tables side by side (Tables 7 and 8): `python -m benchmarks.methods`.

At 7B, on the meta device: trained and all parameters, and operations of a training step (2 images of 3 conversations)
and of an answer about an image, in the prompt or written. On this machine: seconds and memory of a step and of an
answer at `mid`, all methods in turn; on a GPU `--size 7b --device cuda`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from anchorseg.inference.generation import answer_questions
from anchorseg.inference.prefix import prefill_images
from anchorseg.method.objective import Objective
from anchorseg.training.settings import OptimizationSettings
from benchmarks import flops
from benchmarks.counting import Counter, on_meta
from benchmarks.measure import Cost, as_json, in_turn
from benchmarks.workload import answer_ids, collate, empty, questions_of, samples, settings_of
from dataset.batch import Batch
from scripts.parameters import PAPER, meta_model
from scripts.random_weights import draw_weights
from utils.seeding import seed_torch

_PLAIN = {"num_latents": 0, "position_tables": False}
METHODS: dict[str, dict[str, Any]] = {
    "LISA": {"head": "lisa", **_PLAIN},
    "SESAME": {"head": "lisa", **_PLAIN},
    "GSVA": {"head": "gsva", **_PLAIN},
    "READ": {"head": "read", **_PLAIN},
    "PixelLM": {"head": "pixellm", "num_latents": 5, "language_model": "llava-pixellm", "mask_model": "pixellm"},
    "AnchorSeg": {},
}
IMAGES, CONVERSATIONS = 2, 3


class Work:
    """A training step and answers of one model, on any device.

    Args:
        size: `mid`, or that of a preset.
        options: settings of the method or of backbones.
        device: where the model is; on `meta` it can only be counted.
        dtype: of its weights.
    """

    def __init__(self, size: str, options: dict[str, Any], device: str, dtype: torch.dtype) -> None:
        settings = settings_of(size, **options)
        self.model, self.registry = empty(settings, size, dtype=dtype, device=device, trains=True)
        seed_torch("benchmark", size)
        if device != "meta":
            draw_weights(self.model)
        self.objective = Objective(OptimizationSettings().loss_weights(), self.model.head)
        self.batch, self.forced_batch, self.asked = (
            self._ready(collate(self.model, self.registry, chosen, share_prefix=True), torch.device(device), dtype)
            for chosen in (samples(IMAGES, CONVERSATIONS), samples(1, 1), samples(1, 1, answered=False))
        )
        self.question = questions_of(self.model, self.registry, samples(1, 1, answered=False)[0])

    @staticmethod
    def _ready(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
        return on_meta(batch, dtype) if device.type == "meta" else batch.to(device, dtype)

    def step(self) -> None:
        """Forward, objective and backward of a micro-batch."""
        self.objective(self.model.train()(self.batch), self.batch).total.backward()
        self.model.zero_grad()

    @torch.inference_mode()
    def forced(self) -> None:
        """The mask of an answer that is in the prompt."""
        self.model.eval()(self.forced_batch)

    @torch.inference_mode()
    def written(self) -> None:
        """Read the image, write the answer, decode its mask; the ids are dictated."""
        model = self.model.eval()
        images = prefill_images(model, self.asked.images, self.asked.conversations.prefixes(1))
        answer_questions(model, images, self.question, [0], answer=answer_ids(self.registry))

    def calls(self) -> dict[str, Callable[[], None]]:
        """All three by name."""
        return {"step": self.step, "forced": self.forced, "written": self.written}


def counted(method: str) -> dict[str, float]:
    """Parameters at 7B and operations, in units of one."""
    model = meta_model(settings_of("7b", **METHODS[method]))
    parameters = list(model.parameters())
    found: dict[str, float] = {
        "trained": sum(p.numel() for p in parameters if p.requires_grad),
        "all": sum(p.numel() for p in parameters),
    }
    work = Work("7b", METHODS[method], "meta", flops.DTYPE)
    for name, call in work.calls().items():
        counter = Counter()
        with counter.watch([]):
            call()
        found[name] = counter.total
    return found


def measured(size: str, device: str, repeats: int) -> dict[str, dict[str, Cost]]:
    """Seconds and memory of every method's calls, by call, in turn."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    work = {method: Work(size, options, device, dtype) for method, options in METHODS.items()}
    return {
        call: in_turn(
            {method: partial(Work.calls(one)[call]) for method, one in work.items()}, device=device, repeats=repeats
        )
        for call in ("step", "forced", "written")
    }


def main(argv: list[str] | None = None) -> None:
    """Count, measure, print two tables and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["tiny", "mid", "7b"], default="mid", help="of what is measured")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no_counts", action="store_true", help="measure alone")
    arguments = parser.parse_args(argv)
    counts = {} if arguments.no_counts else {method: counted(method) for method in METHODS}
    rule = f"|{'---|' * 7}"
    print(f"| 7B | trained, M | paper | all, M | step, TFLOP | forced answer | written answer |\n{rule}")
    for method, found in counts.items():
        paper = PAPER.get(("7b", METHODS[method].get("head", "anchorseg")), "")
        operations = " | ".join(f"{found[name] / 1e12:.2f}" for name in ("step", "forced", "written"))
        sizes = f"{found['trained'] / 1e6:.2f} | {paper} | {found['all'] / 1e6:.0f}"
        print(f"| {method} | {sizes} | {operations} |", flush=True)
    costs = measured(arguments.size, arguments.device, arguments.repeats)
    print(f"\n| {arguments.size} | step, s | GiB | forced, s | GiB | written, s | GiB |\n{rule}")
    for method in METHODS:
        cells = (f"{costs[call][method].seconds:.3f} | {costs[call][method].peak_bytes / 2**30:.2f}" for call in costs)
        print(f"| {method} | {' | '.join(cells)} |")
    print(json.dumps({"counts": counts, "costs": {call: as_json(found) for call, found in costs.items()}}))


if __name__ == "__main__":
    main()
