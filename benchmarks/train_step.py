"""Seconds and memory of a training step, plain and as it is: `python -m benchmarks.train_step --size mid`.

Forward, objective, backward and AdamW, in one process and in turn, on the same weights. Both losses are compared first.
`--size 7b --device cuda` runs the real sizes in 16 bits with random weights; `--gradient_checkpointing on` and
`--train_embeddings new` do in this project's steps what they do in train_ds.py. The optimizer keeps its state in the
weights' type, not in float32 as DeepSpeed does.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch

from anchorseg.method.captured import CapturedTraining
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.objective import Objective
from anchorseg.training.settings import OptimizationSettings
from benchmarks import flops, naive
from benchmarks.measure import Cost, as_json, describe, in_turn, matmul_peak
from benchmarks.workload import SIZE_NAMES, WordRegistry, build, collate, samples
from dataset.batch import Batch
from dataset.sample import Sample

STORED = "ours, SAM features stored"


class Steps:
    """A training step over the same samples, in both ways, of one model and one optimizer.

    Args:
        model: in training mode.
        registry: its tokenizer.
        chosen: the samples of every step.
        checkpointing: recompute the language model's layers in this project's backward passes too.
    """

    def __init__(
        self, model: AnchorSegModel, registry: WordRegistry, chosen: list[Sample], *, checkpointing: bool = False
    ) -> None:
        self.model = model
        self.checkpointing = checkpointing
        self._captured: CapturedTraining | None = None
        self.weights = OptimizationSettings().loss_weights()
        self.objective = Objective(self.weights, model.head)
        self.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
        weight = model.llava.lm_head.weight
        plain, shared = (collate(model, registry, chosen, share_prefix=share) for share in (False, True))
        self.plain, self.shared = (batch.to(weight.device, weight.dtype) for batch in (plain, shared))
        with torch.no_grad():
            features = tuple(model.mask_features(self.shared.images))
        images = replace(self.shared.images, mask_pixels=self.shared.images.mask_pixels[:0], mask_features=features)
        self.stored = replace(self.shared, images=images)

    def plain_loss(self) -> torch.Tensor:
        """Of the plain way, within `naive.published`."""
        output = naive.forward(self.model, self.plain)
        return naive.loss(output, self.plain, self.weights)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Of this project's, for `shared` or for `stored`."""
        return self.objective(self.model(batch), batch).total

    def plain_step(self) -> None:
        """One step of the plain way."""
        with naive.published(self.model):
            self._update(self.plain_loss())

    def step(self) -> None:
        """One step of this project's."""
        with self._recomputed():
            self._update(self.loss(self.shared))

    def stored_step(self) -> None:
        """The same where SAM's features of the images were stored before."""
        with self._recomputed():
            self._update(self.loss(self.stored))

    @contextmanager
    def _recomputed(self) -> Iterator[None]:
        language_model = self.model.llava.language_model
        if self.checkpointing:
            language_model.activation_checkpointing_enable({"use_reentrant": False})
        try:
            yield
        finally:
            if self.checkpointing:
                language_model.activation_checkpointing_disable()

    def with_graphs(self, step: Callable[[], None]) -> None:
        """A step of this project's with CUDA graphs, which the first calls capture."""
        if self._captured is None:
            self.model.capture_training()
            self._captured = self.model.captured_training
        self.model.captured_training = self._captured
        try:
            step()
        finally:
            self.model.captured_training = None

    def forget_graphs(self) -> None:
        """Give their memory back."""
        self._captured = None

    def _update(self, loss: torch.Tensor) -> None:
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def losses(self) -> tuple[float, float]:
        """Both losses on the same weights."""
        with naive.published(self.model):
            plain = float(self.plain_loss())
        return plain, float(self.loss(self.shared))

    def costs(self, repeats: int) -> dict[str, Cost]:
        """Seconds and memory of both ways."""
        device = self.model.llava.lm_head.weight.device.type
        ways = {"naive": self.plain_step, "ours": self.step, STORED: self.stored_step}
        if device == "cuda" and not self.checkpointing:
            ways |= {f"{way}, graphs": partial(self.with_graphs, ways[way]) for way in list(ways)[1:]}
            for way in list(ways)[3:]:
                ways[way]()  # as it is; the next call captures
        return in_turn(ways, device=device, repeats=repeats)


def work_of(way: str, operations: Mapping[str, Mapping[str, float]]) -> float:
    """Operations of a way by its name in `Steps.costs`; graphs change none."""
    parts = operations["naive" if way == "naive" else "ours"]
    left_out = {flops.MASK_ENCODER} if STORED in way else set()
    return sum(count for part, count in parts.items() if part not in left_out)


def main(argv: list[str] | None = None) -> None:
    """Compare losses, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZE_NAMES, default="mid")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--conversations", type=int, default=3, help="of each image")
    parser.add_argument("--gradient_checkpointing", choices=["off", "on"], default="off")
    parser.add_argument("--train_embeddings", choices=["all", "new"], default="all")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args(argv)
    size, device, images = arguments.size, arguments.device, arguments.images
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    operations = flops.training(*build(size, dtype=flops.DTYPE, device="meta"), images, arguments.conversations)
    model, registry = build(size, dtype=dtype, device=device, rows=arguments.train_embeddings)
    chosen = samples(images, arguments.conversations)
    steps = Steps(model, registry, chosen, checkpointing=arguments.gradient_checkpointing == "on")
    plain, ours = steps.losses()
    print(f"{size} on {device}: loss {plain:.6f} naive, {ours:.6f} ours, difference {ours - plain:.2e}", flush=True)
    costs = steps.costs(arguments.repeats)
    print(describe(f"{images} images, {arguments.conversations} conversations each", costs, images=images))
    peak = matmul_peak(device, dtype)
    shares = {name: work_of(name, operations) / cost.seconds / peak for name, cost in costs.items()}
    reached = ", ".join(f"{share:.1%} {name}" for name, share in shares.items())
    print(f"share of the measured matmul peak of {peak / 1e12:.3f} TFLOP/s: {reached}")
    print(
        json.dumps(
            {
                "size": size,
                "device": device,
                "loss": {"naive": plain, "ours": ours},
                "costs": as_json(costs),
                "operations": {name: sum(parts.values()) for name, parts in operations.items()},
                "matmul_peak": peak,
                "share_of_peak": shares,
            }
        )
    )


if __name__ == "__main__":
    main()
