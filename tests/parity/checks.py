"""Which check a file of a fixture folder gets, and the run over all of them."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.parity import (
    backbones,
    decoder,
    forward,
    generating,
    losses,
    maps,
    names,
    released,
    scores,
    text,
    training,
    views,
)
from tests.parity.context import Context
from tests.parity.reference import Fixture, Row
from tests.parity.samples import ReferenceFileError

ARRAY_CHECKS: dict[str, Callable[[Fixture, Context], None]] = {
    "preprocess.npz": views.check_preprocess,
    "losses.npz": losses.check_losses,
    "similarity_chain.npz": maps.check_maps,
    "quick_select.npz": decoder.check_selection,
    "decoder.npz": decoder.check_decoder,
    "clip_tower.npz": backbones.check_clip,
    "sam_image_encoder.npz": backbones.check_sam,
    "metrics.npz": scores.check_scores,
    "forward_train*.npz": training.check_training,
    "forward_eval*.npz": forward.check_evaluation,
    "forward_generate*.npz": generating.check_generation,
    "train_steps.npz": training.check_steps,
}
"""Pattern of a file's name -> check of its arrays."""

JSON_CHECKS: dict[str, Callable[[Path, Context], list[Row]]] = {
    "config.json": names.check_config,
    "state_dict_keys.json": names.check_state_dict,
    "trainable.json": names.check_trainable,
    "collate.json": text.check_collate,
}

RULE_FILES = (views.ANNOTATION, *released.TOKENIZER_FILES)
"""Files that the checks of the others compute with."""
TEXT_FILES = ("README.md", "tiny_rules.py", "inputs.py")
"""Descriptions; the rules in code are written once more in `tests.parity.rules`."""


def check_folder(folder: Path, weights: Path | None = None) -> list[Row]:
    """Rows of every file of a fixture folder, in the order of their names.

    Args:
        folder: with files of numbers, and beside them the rule files that their weights follow from.
        weights: folder of these rule files, if they are elsewhere.
    """
    with TemporaryDirectory(prefix="parity-") as scratch:
        context = Context(folder, Path(scratch), weights)
        rows = [row for path in sorted(folder.iterdir()) for row in check_file(path, context)]
    compared = any(row.status in ("pass", "FAIL") for row in rows)
    return rows if compared else [*rows, Row(folder.name, "-", "FAIL", note="the folder holds no file of numbers")]


def check_file(path: Path, context: Context) -> list[Row]:
    """Rows of one file; whatever goes wrong is a row, too."""
    if path.name in TEXT_FILES or path.name in RULE_FILES:
        return [Row(path.name, "-", "note" if path.name in TEXT_FILES else "input")]
    if path.name in JSON_CHECKS:
        try:
            return JSON_CHECKS[path.name](path, context)
        except Exception as error:
            return [Row(path.name, "-", "FAIL", note=_reason(error))]
    check = next((check for pattern, check in ARRAY_CHECKS.items() if fnmatch(path.name, pattern)), None)
    if check is None or not path.is_file():
        return [Row(path.name, "-", "FAIL", note="unknown file; this tool has no check for it")]
    try:
        fixture = Fixture(path)
    except ReferenceFileError as error:
        return [Row(path.name, "-", "FAIL", note=_reason(error))]
    try:
        check(fixture, context)
    except Exception as error:
        fixture.fail("-", _reason(error))
        return fixture.finish(stopped=True)
    return fixture.finish()


def _reason(error: Exception) -> str:
    kind = "" if isinstance(error, ReferenceFileError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())
