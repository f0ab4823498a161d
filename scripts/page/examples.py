"""Images to begin with, each with a question: drawn scenes for the miniature, or a folder's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataset.drawn.writer import make_scene
from utils.errors import SettingsError
from utils.pictures import SUFFIXES, save_picture

SEED = 7
"""Of scenes that no model was trained on."""

SCENES = (2, 5, 18, 23, 10, 16)
Example = tuple[Path, str]


def drawn_examples(folder: Path) -> list[Example]:
    """Draw scenes into a folder, each with its own question."""
    found = []
    for number in SCENES:
        scene, (query, *_) = make_scene(SEED, "test", number)
        path = folder / f"scene{number}.png"
        save_picture(path, np.asarray(scene.image))
        found.append((path, query.texts[0]))
    return found


def folder_examples(source: Path) -> list[Example]:
    """The images of a folder; the question to one is in the text file of its name, if there is one.

    Raises:
        SettingsError: if there is no image.
    """
    images: Sequence[Path] = sorted(path for path in source.glob("*") if path.suffix.lower() in SUFFIXES)
    if not images:
        raise SettingsError(f"--examples {source} has no image; allowed suffixes: {', '.join(SUFFIXES)}")
    return [(path, _question(path.with_suffix(".txt"))) for path in images]


def _question(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
