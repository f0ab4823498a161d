"""Data of a run: names on the command line to sources, prompts and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Interface

from torch.utils.data import DataLoader

from anchorseg.config import AnchorSegConfig
from anchorseg.settings import TrainSettings
from anchorseg.tokens import TokenRegistry
from dataset.batch import Batch, Collator, ImageViews
from dataset.families.reason_seg import ReasonSeg, ReasonSegTraining
from dataset.mixture import Draw, DrawOrder, Mixture, Source
from dataset.prompt import PromptEncoder
from dataset.sample import Protocol, Sample
from model.llava import IMAGE_PLACEHOLDER
from utils import geometry
from utils.errors import DataError

FAMILIES = ("reason_seg",)


class EvaluationSource(Interface):
    """A benchmark: samples in a fixed order, asked by one of its protocols."""

    @property
    def scoring(self) -> str:
        """How its answers count: reason, refer, gres, zom, muse or see (`anchorseg.scoring`)."""

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """The protocols that it has."""

    def __len__(self) -> int: ...

    def evaluation_sample(self, index: int, *, protocol: Protocol) -> Sample:
        """Sample `index` as a protocol asks it."""


def make_collator(
    config: AnchorSegConfig, registry: TokenRegistry, *, max_length: int, share_prefix: bool = True
) -> Collator:
    """The collator that suits a model and its tokenizer."""
    use_clip = config.method_settings.clip_statistics == "clip"
    return Collator(
        PromptEncoder(
            registry,
            image_placeholder=IMAGE_PLACEHOLDER,
            num_image_tokens=config.token_grid**2,
            max_length=max_length,
        ),
        ImageViews(
            clip_side=config.clip_side,
            clip_mean=geometry.CLIP_MEAN if use_clip else geometry.SAM_MEAN,
            clip_std=geometry.CLIP_STD if use_clip else geometry.SAM_STD,
            token_grid=config.token_grid,
            sam_side=config.sam_sizes.image_size,
        ),
        share_prefix=share_prefix,
    )


def _source(family: str, settings: TrainSettings) -> Source:
    if family == "reason_seg":
        name, _, splits = settings.reason_seg_data.partition("|")
        if name != "ReasonSeg" or not splits:
            raise DataError(settings.reason_seg_data, "--reason_seg_data is ReasonSeg|SPLIT, such as ReasonSeg|train")
        return ReasonSegTraining(
            settings.dataset_dir,
            tuple(splits.split("_")),
            explanatory=settings.explanatory,
            max_queries=settings.num_classes_per_sample,
        )
    raise DataError(family, f"--dataset has no such family; allowed: {', '.join(FAMILIES)}")


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


def build_mixture(settings: TrainSettings, collator: Collator) -> Mixture:
    """The training stream for a collator; a family of rate 0 is not read.

    Raises:
        DataError: for an unknown family or a malformed annotation.
        FileNotFoundError: for missing data.
    """
    families = [
        (name, rate) for name, rate in zip(settings.dataset.split("||"), settings.sample_rates, strict=True) if rate > 0
    ]
    sources = [(name, _source(name, settings)) for name, _ in families]
    return Mixture(sources, [rate for _, rate in families], seed=settings.seed, check=collator.check)


def build_benchmark(name: str, dataset_dir: str | Path) -> EvaluationSource:
    """The benchmark that `--val_dataset` names, such as `ReasonSeg|val`.

    Raises:
        DataError: for an unknown name.
    """
    dataset, _, split = name.partition("|")
    if dataset != "ReasonSeg" or not split:
        raise DataError(name, "--val_dataset has no such set; allowed: ReasonSeg|SPLIT, such as ReasonSeg|val")
    return ReasonSeg(dataset_dir, split)


@dataclass(frozen=True)
class _CollateDraws:
    collator: Collator

    def __call__(self, draws: Sequence[Draw]) -> tuple[Batch, tuple[str, ...]]:
        skipped = tuple(reason for draw in draws for reason in draw.skipped)
        return self.collator([draw.sample for draw in draws]), skipped


def training_batches(mixture: Mixture, collator: Collator, order: DrawOrder, workers: int) -> DataLoader:
    """Micro-batches of one rank, each with the reasons of skipped records."""
    return DataLoader(
        mixture,
        batch_sampler=order,
        collate_fn=_CollateDraws(collator),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
