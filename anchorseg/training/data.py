"""Data of a run: names on the command line to sources, prompts and batches."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from torch.utils.data import DataLoader

from anchorseg.method.options import Method, MethodOptions
from anchorseg.training.settings import DataSettings
from dataset.batch import Batch
from dataset.checking import Outcome, check_records, refuse_faults, sentence
from dataset.collator import Collator
from dataset.mixture import MAX_SKIPPED, DrawnSample, Mixture, ResumableBatchSampler, as_it_is
from dataset.readers.folder import DataFolder
from dataset.readers.records import default_index_folder
from dataset.registry import datasets, open_benchmark, training_sources
from dataset.sample import Sample
from dataset.source import Benchmark, Checkable, FamilyOptions, Source
from utils.distributed import is_main
from utils.errors import DataError

Read = TypeVar("Read", Source, Benchmark)


def check_data_folder(folder: str | Path) -> None:
    """Refuse a data folder that does not exist.

    Raises:
        FileNotFoundError: naming it.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(
            f"--dataset_dir {folder} does not exist; give the folder that holds the datasets "
            "(docs/data.md), or write the drawn scenes there: python -m scripts.make_scenes DIR"
        )


def data_folder(dataset_dir: str, index_dir: str | None) -> DataFolder:
    """The folder of `--dataset_dir`, with that of `--index_dir` or the user's cache.

    Raises:
        FileNotFoundError: if it does not exist.
    """
    check_data_folder(dataset_dir)
    return DataFolder(Path(dataset_dir), Path(index_dir) if index_dir else default_index_folder())


def family_options(settings: DataSettings, method: MethodOptions | None = None) -> FamilyOptions:
    """What the training families need of the settings, and of the method if there is one."""
    return FamilyOptions(
        sets={family: getattr(settings, f"{family}_data") for family in datasets()},
        max_questions=settings.num_classes_per_sample,
        max_per_question=settings.num_classes_per_question,
        explanatory=settings.explanatory,
        custom_data=settings.custom_data,
        instances=isinstance(method, Method) and method.anchor_instances,
    )


def with_banks_of_random_length(sample: Sample, rng: np.random.Generator, *, num_latents: int) -> Sample:
    """A sample whose conversations have 1 to `num_latents` latent tokens in each of their banks, drawn for each."""
    lengths = rng.integers(1, num_latents + 1, size=len(sample.conversations)).tolist()
    drawn = (replace(each, latents=length) for each, length in zip(sample.conversations, lengths, strict=True))
    return replace(sample, conversations=tuple(drawn))


def build_mixture(
    settings: DataSettings, collator: Collator, *, seed: int, method: MethodOptions | None = None
) -> Mixture:
    """The training stream for a collator; a family of rate 0 is not read, and the datasets of one share its rate.

    Args:
        settings: of the data.
        collator: encodes conversations.
        seed: of the stream.
        method: whose `bank_length` may be random, and which may need the objects of a mask.

    Raises:
        DataError: for an unknown family or dataset, or annotations that cannot be used.
        FileNotFoundError: for missing data.
    """
    data, options = data_folder(settings.dataset_dir, settings.index_dir), family_options(settings, method)
    latents = method.num_latents if isinstance(method, Method) and method.bank_length == "random" else None
    sources: list[tuple[str, Source]] = []
    rates: list[float] = []
    for family, rate in zip(settings.dataset.split("||"), settings.sample_rates, strict=True):
        if rate > 0:
            found = training_sources(family, data, options)
            most = 0.0 if settings.strict_data else MAX_SKIPPED
            sources += [
                (name, checked(source, data, name=name, workers=settings.workers, most=most)) for name, source in found
            ]
            rates += [rate / len(found)] * len(found)
    return Mixture(
        sources,
        rates,
        seed=seed,
        each_record_once=settings.sampling == "epoch",
        vary=as_it_is if latents is None else partial(with_banks_of_random_length, num_latents=latents),
        encode=collator.encode,
        max_attempts=1 if settings.strict_data else 20,
    )


def open_benchmarks(names: str, data: DataFolder, custom_data: str | None, *, workers: int) -> dict[str, Benchmark]:
    """Benchmarks by their names, joined by ||, every record checked; none of the questions is left out.

    Raises:
        DataError: for an unknown name, or a record that cannot be used.
        FileNotFoundError: for missing data.
    """
    return {
        name: checked(open_benchmark(name, data, custom_data), data, name=name, workers=workers, most=0.0)
        for name in dict.fromkeys(names.split("||"))
    }


def checked(source: Read, data: DataFolder, *, name: str, workers: int, most: float) -> Read:
    """A source or benchmark without the records that cannot be used, or in which there is nothing to ask for.

    Families that are not `Checkable` are returned as they are: their records are checked when they are indexed.

    Args:
        source: of any family.
        data: whose folder of indices keeps the outcome.
        name: for messages.
        workers: processes that check.
        most: share of the records that may be unusable, see `refuse_faults`.

    Raises:
        DataError: if more are, or none is left.
    """
    if not isinstance(source, Checkable):
        return source
    outcome: Outcome = check_records(source, data.index, name=name, workers=workers)
    refuse_faults(name, outcome, most=most)
    if is_main() and outcome.faults:
        print(f"warning: {name}: {sentence(outcome)}. They are left out", file=sys.stderr)
    if is_main() and outcome.empty:
        left_out = len(outcome.empty)
        print(f"{name}: {left_out} of {outcome.count} images are left out: no pixel belongs to any of their labels")
    leaving = {*outcome.faults, *outcome.empty}
    if len(leaving) == outcome.count:
        raise DataError(name, "no record is left: no pixel belongs to any label")
    return cast(Read, source.without(leaving)) if leaving else source


def _collate_draws(draws: Sequence[DrawnSample], collator: Collator) -> tuple[Batch, tuple[str, ...]]:
    skipped = tuple(reason for draw in draws for reason in draw.skipped)
    return collator.collate([draw.encoded for draw in draws]), skipped


def training_batches(mixture: Mixture, collator: Collator, order: ResumableBatchSampler, workers: int) -> DataLoader:
    """Micro-batches of one rank, each with the reasons of skipped records."""
    return DataLoader(
        mixture,
        batch_sampler=order,
        collate_fn=partial(_collate_draws, collator=collator),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
