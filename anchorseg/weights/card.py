"""The model card: README.md of a model folder, with the front matter that the Hugging Face hub reads.

It says what is known and no more: what the folder holds, the run that trained it, and the terms of each part. The same
folder and run give the same card.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anchorseg.method.config import AnchorSegConfig
from anchorseg.method.heads import head_entry
from anchorseg.method.model_folder import read_config
from anchorseg.weights.published import CLIP, LLAMA, SAM, named, parts_of
from anchorseg.weights.shipped import ASSETS, SHIPPED
from model.backbones import language_backbone, mask_backbone
from utils.environment import git_state
from utils.files import write_text
from utils.tensor_files import TensorFiles
from utils.version import __version__

FILE = "README.md"
PROJECT_LICENCE = "Apache-2.0"
_TAGS = ("anchorseg", "reasoning-segmentation", "referring-expression-segmentation")
_RECIPE = (
    "preset", "epochs", "steps_per_epoch", "batch_size", "grad_accumulation_steps", "lr", "warmup_steps", "optimizer",
    "weight_decay", "precision", "seed", "lora_r", "lora_alpha", "lora_target_modules", "train_scope",
    "train_embeddings", "ce_loss_weight", "bce_loss_weight", "dice_loss_weight", "num_classes_per_sample", "sampling",
)  # fmt: skip
_PARTS = (
    ("vision tower", "llava.network.model.vision_tower."),
    ("projector", "llava.network.model.multi_modal_projector."),
    ("language model", "llava."),
    ("vision tower", "qwen.network.model.visual."),
    ("language model", "qwen."),
    ("image encoder of the masks", "sam.image_encoder."),
    ("mask decoder", "sam."),
    ("image encoder of the masks", "sam2.image_encoder."),
    ("mask decoder", "sam2."),
    ("image encoder of the masks", "sam3.image_encoder."),
    ("mask decoder", "sam3."),
    ("mask decoder", "pixel_decoder."),
    ("head", ""),
)
"""Parts by the beginning of their tensors' names; the first that fits. A backbone that is not among them is one part,
which `_parts` knows by its own name."""


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """The run that trained a model, as its folder tells it.

    Attributes:
        settings: of config.json.
        commit: of the code that trained, or None where it is not known.
        step: of the merged checkpoint.
        scores: of the validation at that step by tag, `BENCHMARK/METRIC`; empty where there was none.
    """

    settings: Mapping[str, Any]
    commit: str | None
    step: int
    scores: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a part came from, and its terms."""

    part: str
    source: str
    licence: str
    repository: str | None = None


def write_card(folder: Path, *, record: TrainingRecord | None = None, converted_from: str | None = None) -> None:
    """Write the card of a complete model folder.

    Args:
        folder: with its configuration and weights.
        record: of the run that trained it, where there is one.
        converted_from: folder or hub name of the released checkpoint that was converted.

    Raises:
        CheckpointError: if the folder cannot be read.
    """
    config = read_config(folder)
    files = TensorFiles(folder)
    parts = _parts(config)
    counts = dict.fromkeys((name for name, _ in parts), 0)
    own_name = language_backbone(config.language_model).module_name
    for name in files:
        part = next(part for part, beginning in parts if own_name(name).startswith(beginning))
        counts[part] += files.shape(name).numel()
    origins = _origins(config, record, converted_from)
    sections = [
        _front_matter(config, origins),
        _opening(config, converted_from),
        _use(),
        _method(config, counts),
        _training(record),
        _scores(record),
        _terms(origins),
        _made_with(record),
    ]
    write_text(folder / FILE, "\n\n".join(sections) + "\n")


def _parts(config: AnchorSegConfig) -> tuple[tuple[str, str], ...]:
    *known, rest = _PARTS
    language, masks = language_backbone(config.language_model), mask_backbone(config.mask_model)
    return (*known, ("language model", f"{language.saved_as}."), ("mask decoder", f"{masks.saved_as}."), rest)


def plain(value: object, longest: int = 200) -> str:
    """A value as text that Markdown shows as it is, on one line, in a table or outside of one."""
    text = " ".join(str(value).split())
    text = text if len(text) <= longest else f"{text[: longest - 3]}..."
    return re.sub(r"([\\`*_{}\[\]<>()#|!~$&])", r"\\\1", text)


def _front_matter(config: AnchorSegConfig, origins: tuple[Origin, ...]) -> str:
    values: dict[str, str | list[str]] = {
        "library_name": "anchorseg",
        "pipeline_tag": "image-segmentation",
        "license": _hub_licence(origins),
        "tags": list(dict.fromkeys([*_TAGS, config.head])),
    }
    bases = sorted({origin.repository for origin in origins if origin.repository})
    if bases:
        values["base_model"] = bases
    # A JSON text or list is YAML, too.
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in values.items()), "---"])


def _hub_licence(origins: tuple[Origin, ...]) -> str:
    licences = {origin.licence for origin in origins}
    if any(licence.endswith(LLAMA) for licence in licences):
        return "llama2"
    return "apache-2.0" if licences == {PROJECT_LICENCE} else "other"


def _opening(config: AnchorSegConfig, converted_from: str | None) -> str:
    kinds = f"head `{config.head}`, language backbone `{config.language_model}`, mask backbone `{config.mask_model}`"
    converted = f" Converted from {plain(_shown_name(converted_from))}." if converted_from else ""
    return (
        "# AnchorSeg model\n\n"
        f"Answers questions about a photograph in words and masks; {kinds}.{converted} Masks and answers can be wrong; "
        "look at them before anything depends on them."
    )


def _use() -> str:
    return """## Use

```python
from anchorseg import AnchorSegPredictor
predictor = AnchorSegPredictor.from_pretrained("FOLDER")  # this folder, or its name on the hub, OWNER/NAME
predictor.set_image(image)  # (H, W, 3) uint8 RGB
mask = predictor.predict("the cup").mask  # (H, W) boolean, or None without a target
```"""


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in row)} |" for row in lines)


def _section(title: str, *paragraphs: str) -> str:
    return "\n\n".join([f"## {title}", *(paragraph for paragraph in paragraphs if paragraph)])


def _method(config: AnchorSegConfig, counts: Mapping[str, int]) -> str:
    default = {field.name: field.default for field in dataclasses.fields(head_entry(config.head).Options)}
    other = [
        (f"`{name}`", plain(value), plain(default[name]))
        for name, value in sorted((config.method or {}).items())
        if value != default[name]
    ]
    sizes = [(part, f"{count:,}") for part, count in counts.items() if count]
    return _section(
        "Method",
        "Options that differ from their defaults (the project's `docs/decisions.md` says what they mean):"
        if other
        else f"All options of the head `{config.head}` have their defaults.",
        _table(("option", "here", "default"), other) if other else "",
        _table(("part", "parameters"), [*sizes, ("all", f"{sum(counts.values()):,}")]),
    )


def _training(record: TrainingRecord | None) -> str:
    if record is None:
        return _section("Training", "This folder does not say what it was trained on.")
    settings = record.settings
    families, rates = str(settings["dataset"]).split("||"), settings["sample_rates"]
    data = [
        (plain(family), plain(settings.get(f"{family}_data", "").replace("||", ", ")), plain(f"{rate:g}"))
        for family, rate in zip(families, rates, strict=True)
    ]
    return _section(
        "Training",
        f"Step {record.step} of a run with this mixture and recipe.",
        _table(("family", "datasets", "rate"), data),
        _table(("setting", "value"), [(f"`{name}`", plain(settings[name])) for name in _RECIPE]),
    )


def _scores(record: TrainingRecord | None) -> str:
    if record is None or not record.scores:
        return _section("Scores", "This folder was written without scores.")
    rows = [(*map(plain, tag.rpartition("/")[::2]), f"{value:.4f}") for tag, value in sorted(record.scores.items())]
    return _section(
        "Scores",
        f"Validation at step {record.step}, of the weights before adapters were merged. Protocol `forced` where a "
        "benchmark has it: the answer with its query bank is in the prompt, and the model is not asked whether to "
        "segment; else `generate`. The checkpoint may have been chosen by these scores.",
        _table(("benchmark", "metric", "score"), rows),
    )


def _terms(origins: tuple[Origin, ...]) -> str:
    rows = [(origin.part, plain(origin.source, 400), plain(origin.licence, 400)) for origin in origins]
    return _section(
        "Terms",
        "Each part has terms of its own, which hold for this model, too. Check the terms at the source before use.",
        _table(("part", "from", "licence"), rows),
        "Photographs and annotations that it was trained on have owners and licences of their own, some of which "
        "forbid commercial use: see the project's `docs/data.md` and the sources named there.",
    )


def _made_with(record: TrainingRecord | None) -> str:
    state = git_state()
    here = f", commit `{state['commit']}`{' with changes' if state['dirty'] else ''}" if state["commit"] else ""
    trained = f" The run was trained at commit {plain(record.commit)}." if record and record.commit else ""
    return _section("Made with", f"anchorseg {__version__}{here}.{trained}")


def _origins(config: AnchorSegConfig, record: TrainingRecord | None, converted_from: str | None) -> tuple[Origin, ...]:
    code = Origin(part="code", source="AnchorSeg", licence=PROJECT_LICENCE)
    if converted_from is not None:
        return (code, _origin("released model", converted_from), _origin("vision tower", CLIP.name),
                _origin("mask backbone", SAM.name))  # fmt: skip
    if record is None:
        possible = parts_of(config.language_model, config.mask_model)
        return (
            code,
            Origin(
                part="weights",
                source="not recorded; models of these backbones build on some of "
                + ", ".join(weights.name for weights in possible),
                licence="; ".join(f"of {weights.name}: {weights.licence}" for weights in possible) + ", if it has them",
            ),
        )
    flags = (("language model", "version"), ("vision tower", "vision_tower"), ("mask backbone", "vision_pretrained"))
    given = [_origin(part, record.settings[flag]) for part, flag in flags if record.settings.get(flag)]
    if not given:
        return (code, Origin(part="weights", source="trained from nothing", licence="of whoever trained it"))
    return (code, *given)


def _origin(part: str, name: str) -> Origin:
    weights = named(name)
    if weights is not None:
        return Origin(part=part, source=weights.source, licence=weights.licence, repository=weights.repository)
    if name in SHIPPED or Path(name).is_relative_to(ASSETS):
        return Origin(part=part, source=f"{_shown_name(name)}, which comes with AnchorSeg", licence=PROJECT_LICENCE)
    return Origin(part=part, source=_shown_name(name), licence="not known here")


def _shown_name(name: str) -> str:
    """The last part of a path; the rest is of one machine."""
    return Path(name).name or name
