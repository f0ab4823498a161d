"""What recipes and the paper's tables need: weights, datasets, benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anchorseg.training.settings import SMALL, TrainSettings
from anchorseg.weights.published import CLIP, MASKS, RELEASED_GREFCOCO, RELEASED_REASON_SEG, Weights, of_language
from dataset.registry import FAMILIES, datasets
from dataset.source import Expected
from scripts.check_data import mixture
from utils.errors import SettingsError
from utils.settings import parse

CONFIGS = Path(__file__).parents[1] / "configs"
_REASON_SEG = "reason_seg/ReasonSeg"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the paper.

    Attributes:
        presets: recipes that train its rows.
        released: weights of its rows that the authors published, and what these need.
        benchmarks: places below the data folder that are evaluated, beyond the training data.
        families: whose datasets it lists, whatever the recipes train on.
        about: what else is to be known, or nothing.
    """

    presets: tuple[str, ...] = ()
    released: tuple[Weights, ...] = ()
    benchmarks: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    about: str = ""


_VAL, _TEST = f"{_REASON_SEG}/val", f"{_REASON_SEG}/test"
_ABLATIONS = Table(presets=("published-7b-reasonseg",), benchmarks=(_VAL,))
TABLES: dict[int, Table] = {
    1: Table(
        presets=("published-7b-reasonseg", "paper-7b", "paper-13b"),
        released=(RELEASED_REASON_SEG, CLIP),
        benchmarks=(_VAL, _TEST),
    ),
    2: Table(presets=("paper-rec-7b",), about="its benchmarks are splits of the training files"),
    3: Table(
        presets=("paper-gres-7b",),
        released=(RELEASED_GREFCOCO, CLIP),
        about="its benchmark is a split of the training files",
    ),
    4: _ABLATIONS,
    5: _ABLATIONS,
    6: _ABLATIONS,
    7: Table(about="parameters, and speed at random weights, need no files (docs/reproduce.md)"),
    8: Table(about="speed at random weights needs no files (docs/reproduce.md)"),
    9: Table(families=tuple(datasets())),
    10: Table(presets=("paper-7b", "paper-13b", "paper-rec-7b", "paper-gres-7b"), benchmarks=(_VAL,)),
}
"""By number; docs/reproduce.md has the commands."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What there must be on disk.

    Attributes:
        weights: each once.
        datasets: by name, FAMILY/DATASET.
        benchmarks: places below the data folder.
        about: sentences for the reader.
    """

    weights: tuple[Weights, ...]
    datasets: dict[str, Expected]
    benchmarks: tuple[str, ...] = ()
    about: tuple[str, ...] = ()


def of_preset(name: str) -> Needs:
    """What a recipe of `configs/` needs.

    Raises:
        SettingsError: if there is no such recipe.
    """
    settings = parse(TrainSettings, ["--preset", name], preset_dir=CONFIGS)
    places: list[str] = []
    if settings.val_dataset.startswith("ReasonSeg|") and not settings.no_eval:
        places.append(_VAL)
    if "reason_seg" in settings.dataset.split("||") and settings.explanatory >= 0:
        places.append(f"{_REASON_SEG}/explanatory/train.json")
    chosen = {family: getattr(settings, f"{family}_data") for family in datasets()}
    found = _expected(mixture(settings.dataset, chosen, settings.custom_data))
    if settings.size in SMALL:
        about = f"size {settings.size}: its weights come with the project, or it starts from nothing"
        return Needs(weights=(), datasets=found, benchmarks=tuple(places), about=(about,))
    found_weights = (of_language(settings.language_model, settings.size), MASKS.get(settings.mask_model))
    weights = tuple(each for each in found_weights if each is not None)
    return Needs(weights=weights, datasets=found, benchmarks=tuple(places))


def of_table(number: int) -> Needs:
    """What a table of the paper needs: its recipes, its benchmarks, and what the authors released of it.

    Raises:
        SettingsError: if the paper has no such table.
    """
    if number not in TABLES:
        raise SettingsError(f"--table {number}: the paper has none; allowed: {', '.join(map(str, TABLES))}")
    table = TABLES[number]
    parts = [of_preset(name) for name in table.presets]
    weights = [weights for part in parts for weights in part.weights] + list(table.released)
    every = [f"{family}/{name}" for family in table.families for name in datasets()[family]]
    return Needs(
        weights=tuple(dict.fromkeys(weights)),
        datasets={name: found for part in parts for name, found in part.datasets.items()} | _expected(every),
        benchmarks=tuple(dict.fromkeys([*(place for part in parts for place in part.benchmarks), *table.benchmarks])),
        about=(table.about,) if table.about else (),
    )


def _expected(names: list[str]) -> dict[str, Expected]:
    """What datasets need, by FAMILY/DATASET; a split of a dataset has the needs of the dataset."""
    found: dict[str, Expected] = {}
    for name in names:
        family, _, dataset = name.partition("/")
        for known, expected in FAMILIES[family].sets.items():
            if known.partition("|")[0] == dataset.partition("|")[0]:
                found[f"{family}/{known}"] = expected
    return found
