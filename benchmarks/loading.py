"""Training samples a second of each dataset on one core, and of all in two workers: `python -m benchmarks.loading`.

Without --dataset_dir the drawn layouts are written first. A sample is read, decoded and asked; collated, it also has
both views at the sizes of the 7B model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import cv2
import torch
from torch.utils.data import DataLoader

from anchorseg.inference.collate import make_collator
from anchorseg.method.config import AnchorSegConfig
from anchorseg.method.tokens import TokenRegistry
from anchorseg.training.settings import ModelSettings
from anchorseg.weights.folder import tiny_tokenizer
from anchorseg.weights.presets import new_registry, preset_config
from dataset.collator import Collator
from dataset.mixture import Mixture, ResumableBatchSampler
from dataset.readers.folder import DataFolder
from dataset.readers.records import default_index_folder
from dataset.registry import datasets, training_sources
from dataset.sample import Sample
from dataset.source import FamilyOptions, Source
from tests.drawn.layouts import write_layouts
from utils.seeding import generator_for


def seven_billion() -> tuple[AnchorSegConfig, TokenRegistry]:
    """Sizes of the 7B model with a small tokenizer; no weight is made."""
    settings = ModelSettings()
    name = settings.language_model
    registry = new_registry(tiny_tokenizer(name), name, settings.method().token_counts())
    return preset_config(settings.size, settings.method(), registry), registry


def per_second(step: object, count: int) -> float:
    """Calls a second of `step(number)`, after one call that is not counted."""
    step(0)  # type: ignore[operator]
    began = time.perf_counter()
    for number in range(1, count + 1):
        step(number)  # type: ignore[operator]
    return count / (time.perf_counter() - began)


def main() -> None:
    """Measure every dataset, then the mixture with two workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset_dir", help="folder that holds the datasets")
    parser.add_argument("--samples", type=int, default=40)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    collator = make_collator(*seven_billion(), max_length=2048)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(arguments.dataset_dir or folder)
        if arguments.dataset_dir is None:
            write_layouts(root, families=[name for name in datasets() if name != "reason_seg"], images=40, seed=0)
        data = DataFolder(root, default_index_folder())
        families = [family for family in datasets() if family != "reason_seg"]
        sources = [source for family in families for source in training_sources(family, data, FamilyOptions())]
        rates: dict[str, dict[str, float]] = {}
        print(f"{'':<40} {'samples/s':>10} {'collated/s':>11}")
        for name, source in sources:
            rates[name] = measure(source, collator, arguments.samples)
            print(f"{name:<40} {rates[name]['samples']:>10.1f} {rates[name]['collated']:>11.1f}", flush=True)
        workers = through_loader(sources, collator, arguments.samples * 5)
        print(f"{'all, DataLoader with 2 workers':<40} {'':>10} {workers:>11.1f}")
    print(json.dumps({"datasets": rates, "two_workers": workers}))


def measure(source: Source, collator: Collator, count: int) -> dict[str, float]:
    """Samples a second as read, and with both views and ids made."""

    def read(number: int) -> Sample:
        return source.training_sample(number % len(source), generator_for(0, number))

    return {"samples": per_second(read, count), "collated": per_second(lambda n: collator([read(n)]), count)}


def through_loader(sources: list[tuple[str, Source]], collator: Collator, count: int) -> float:
    """Samples a second of the mixture with two worker processes, start included."""
    mixture = Mixture(sources, [1.0] * len(sources), seed=0, encode=collator.encode)
    order = ResumableBatchSampler(batch_size=2, rank=0, world=1, start=0, stop=count // 2)
    loader = DataLoader(
        mixture,
        batch_sampler=order,
        num_workers=2,
        collate_fn=lambda draws: collator.collate([draw.encoded for draw in draws]),
    )
    began = time.perf_counter()
    for _ in loader:
        pass
    return count / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
