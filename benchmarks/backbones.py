"""The backbones side by side at their real sizes: `python -m benchmarks.backbones`.

Operations of a training step (2 images of 480 x 640 with 3 conversations) and of masks for answers in the prompt, and
parameters by group, all counted on the meta device. `--seconds` also counts and measures a step of each pair at `tiny`
on this machine's CPU, all in turn. Each language backbone trains the rows of its tables that its preset says.
"""

from __future__ import annotations

import argparse
import itertools
import json
from typing import Any

import torch

from anchorseg.method.modeling import AnchorSegModel
from anchorseg.training.trainable import trainable_groups
from benchmarks import flops
from benchmarks.counting import on_meta
from benchmarks.measure import Cost, as_json, in_turn
from benchmarks.methods import CONVERSATIONS, IMAGES, Work
from benchmarks.workload import Rows, WordRegistry, build, collate, samples

PRESETS: dict[str, tuple[str, str, Rows]] = {
    "7b": ("llava-1.5", "7b", "all"),
    "qwen3-vl-2b": ("qwen3-vl", "2b", "new"),
    "qwen3-vl-4b": ("qwen3-vl", "4b", "new"),
    "qwen3-vl-8b": ("qwen3-vl", "8b", "new"),
    "qwen2.5-vl-7b": ("qwen2.5-vl", "7b", "new"),
}
"""Of configs/: language backbone, size, and rows of the vocabulary tables that train."""
MASKS = ("sam", "sam2.1-large", "sam2.1-base-plus", "sam2.1-small", "sam2.1-tiny", "sam3")
MINIATURES = {"llava-1.5": "7b", "qwen3-vl": "qwen3-vl-8b", "qwen2.5-vl": "qwen2.5-vl-7b"}
"""Language backbones at `tiny`, and the preset that each stands for."""
MINIATURE_MASKS = ("sam", "sam2.1-large")
"""Mask backbones that differ at `tiny`."""
QUESTIONS = (1, 3)
COLUMNS = (flops.VISION, flops.FORWARD, flops.BACKWARD, flops.HEAD, flops.MASK_ENCODER, flops.REST)

Counts = dict[str, Any]


def counted(language_model: str, size: str, rows: Rows, mask_model: str) -> Counts:
    """Operations, image tokens, columns of a row, and parameters of a pair of backbones, in units of one.

    Args:
        language_model: name of the language backbone; `mask_model` alike.
        size: of the language backbone.
        rows: of the vocabulary tables that train.
        mask_model: see `language_model`.
    """
    backbones: dict[str, Any] = {"language_model": language_model, "mask_model": mask_model}
    model, registry = build(size, dtype=flops.DTYPE, device="meta", rows=rows, **backbones)
    parameters = list(model.parameters())
    groups = {name: sum(p.numel() for p in group) for name, group in trainable_groups(model).items()}
    batch = collate(model, registry, samples(IMAGES, CONVERSATIONS), share_prefix=True)
    step = flops.step_parts(model, on_meta(batch, flops.DTYPE), AnchorSegModel.forward)
    grid = batch.images.language_frames[0].grid
    return {
        "image_tokens": grid[0] * grid[1],
        "columns": batch.conversations.input_ids.shape[1],
        "trained": sum(p.numel() for p in parameters if p.requires_grad),
        "all": sum(p.numel() for p in parameters),
        "groups": groups,
        "step": step,
        "forced": _answers(model.eval(), registry),
    }


def _answers(model: AnchorSegModel, registry: WordRegistry) -> dict[int, int]:
    return {number: sum(flops.forced_parts(model, registry, number).values()) for number in QUESTIONS}


def measured(repeats: int) -> dict[tuple[str, str], Cost]:
    """Seconds and memory of forward, objective and backward at `tiny` in float32, of each pair of backbones."""
    works = {
        f"{language} {masks}": Work("tiny", {"language_model": language, "mask_model": masks}, "cpu", torch.float32)
        for language, masks in itertools.product(MINIATURES, MINIATURE_MASKS)
    }
    costs = in_turn({name: work.step for name, work in works.items()}, device="cpu", repeats=repeats)
    return dict(zip(itertools.product(MINIATURES, MINIATURE_MASKS), costs.values(), strict=True))


def seconds_table(costs: dict[tuple[str, str], Cost], found: dict[str, dict[str, Counts]]) -> str:
    """Of each pair the TFLOP of a step at real size, where it was counted; and at `tiny` its GFLOP and seconds."""
    rows = []
    for (language, masks), cost in costs.items():
        real = found.get(masks, {}).get(MINIATURES[language])
        small = counted(language, "tiny", "all", masks)
        operations = "" if real is None else f"{sum(real['step'].values()) / 1e12:.2f}"
        cells = [
            operations,
            f"{sum(small['step'].values()) / 1e9:.2f}",
            f"{cost.seconds:.3f}",
            f"{cost.cpu_seconds:.3f}",
        ]
        rows.append([language, masks, MINIATURES[language], *cells])
    titles = ["language", "masks", "preset", "TFLOP", "GFLOP at tiny", "seconds at tiny", "CPU seconds at tiny"]
    return markdown(titles, rows)


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def operations_row(name: str, masks: str, found: Counts) -> list[str]:
    """Cells of a pair: TFLOP of a step in all, with stored features and by part, and of answers."""
    step = found["step"]
    total = sum(step.values())
    operations = [total, total - step[flops.MASK_ENCODER], *found["forced"].values(), *(step[part] for part in COLUMNS)]
    return [name, masks, *(f"{count / 1e12:.2f}" for count in operations)]


def parameters_table(found: dict[str, Counts]) -> str:
    """Parameters by group, a column for each preset."""
    names = dict.fromkeys(group for one in found.values() for group in one["groups"])
    rows = [[group, *(f"{one['groups'].get(group, 0):,}" for one in found.values())] for group in names]
    rows += [[title, *(f"{one[key]:,}" for one in found.values())] for key, title in _SUMS.items()]
    return markdown(["parameters", *found], rows)


_SUMS = {"trained": "trained", "all": "all", "image_tokens": "image tokens", "columns": "columns of a row"}


def main(argv: list[str] | None = None) -> None:
    """Count, measure, print tables and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="*", choices=tuple(PRESETS), default=list(PRESETS))
    parser.add_argument("--mask_models", nargs="+", choices=MASKS, default=list(MASKS))
    parser.add_argument("--size", choices=["tiny"], help="count the miniatures in place of the presets' sizes")
    parser.add_argument("--seconds", action="store_true", help="measure steps at tiny on the CPU")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args(argv)
    found: dict[str, dict[str, Counts]] = {masks: {} for masks in arguments.mask_models}
    rows = []
    for preset, masks in itertools.product(arguments.presets, arguments.mask_models):
        language, size, trained = PRESETS[preset]
        found[masks][preset] = counted(language, arguments.size or size, trained, masks)
        rows.append(operations_row(preset, masks, found[masks][preset]))
    titles = ["step", "stored features", *(f"{number} forced" for number in QUESTIONS), *COLUMNS]
    print(markdown(["preset", "masks", *titles], rows))
    for masks, presets in found.items():
        print(f"\nParameters with {masks}\n\n{parameters_table(presets)}")
    costs = measured(arguments.repeats) if arguments.seconds else {}
    if costs:
        print(f"\n{seconds_table(costs, found)}")
    print(json.dumps({"counts": found, "costs": as_json({" ".join(pair): cost for pair, cost in costs.items()})}))


if __name__ == "__main__":
    main()
