"""Data of a run: names on the command line to sources, prompts and batches."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import DataLoader

from anchorseg.config import AnchorSegConfig
from anchorseg.settings import TrainSettings
from anchorseg.tokens import TokenRegistry
from dataset.batch import Batch, Collator, ImageViews
from dataset.feature_store import FeatureStore
from dataset.mixture import Draw, DrawOrder, Mixture, Source
from dataset.prompt import PromptEncoder
from dataset.readers.folder import DataFolder
from dataset.readers.records import default_index_folder
from dataset.registry import SETS, FamilyOptions, training_sources
from model.llava import IMAGE_PLACEHOLDER
from utils import geometry
from utils.errors import SettingsError


def make_collator(
    config: AnchorSegConfig,
    registry: TokenRegistry,
    *,
    max_length: int,
    share_prefix: bool = True,
    store: FeatureStore | None = None,
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
        store=store,
    )


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


def check_cache_folder(folder: str | None) -> None:
    """Make the folder of `--cache_features`, if there is one.

    Raises:
        SettingsError: if it is a file or cannot be written.
    """
    if folder is None:
        return
    if Path(folder).is_file():
        raise SettingsError(f"--cache_features {folder} is a file; give a folder, which is made if it is not there")
    probe = Path(folder) / f".{uuid.uuid4().hex}.tmp"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SettingsError(
            f"--cache_features {folder} cannot be written ({error.strerror}); give a folder that can, or leave it out"
        ) from None


def data_folder(dataset_dir: str, index_dir: str | None) -> DataFolder:
    """The folder of `--dataset_dir`, with that of `--index_dir` or the user's cache.

    Raises:
        FileNotFoundError: if it does not exist.
    """
    check_data_folder(dataset_dir)
    return DataFolder(Path(dataset_dir), Path(index_dir) if index_dir else default_index_folder())


def family_options(settings: TrainSettings) -> FamilyOptions:
    """What the training families need of a run's settings."""
    return FamilyOptions(
        sets={family: getattr(settings, f"{family}_data") for family in SETS},
        max_questions=settings.num_classes_per_sample,
        max_per_question=settings.num_classes_per_question,
        explanatory=settings.explanatory,
        custom_data=settings.custom_data,
    )


def build_mixture(settings: TrainSettings, collator: Collator) -> Mixture:
    """The training stream for a collator; a family of rate 0 is not read, and the datasets of one share its rate.

    Raises:
        DataError: for an unknown family or dataset, or annotations that cannot be used.
        FileNotFoundError: for missing data.
    """
    data, options = data_folder(settings.dataset_dir, settings.index_dir), family_options(settings)
    sources: list[tuple[str, Source]] = []
    rates: list[float] = []
    for family, rate in zip(settings.dataset.split("||"), settings.sample_rates, strict=True):
        if rate > 0:
            found = training_sources(family, data, options)
            sources += found
            rates += [rate / len(found)] * len(found)
    return Mixture(
        sources,
        rates,
        seed=settings.seed,
        each_record_once=settings.sampling == "epoch",
        check=collator.check,
        max_attempts=1 if settings.strict_data else 20,
    )


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
