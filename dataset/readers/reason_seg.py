"""ReasonSeg on disk: photographs, their reasoning queries and the polygons of what they mean.

`ROOT/reason_seg/ReasonSeg/{train,val,test}/NAME.jpg` with `NAME.json`, and `explanatory/train.json`. An annotation
holds `text` (1 to 5 wordings of one query), `is_sentence`, and `shapes` (label and polygon points; "flag" shapes are
dropped and "ignore" shapes are left out of evaluation). An image may have further queries in `NAME.2.json`,
`NAME.3.json`, ..., which the published sets do not use.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from dataset.readers.labelme import LabelMeFile, parse_labelme
from dataset.readers.western import decode_western
from utils.errors import DataError
from utils.files import read_json
from utils.shown import shown

FOLDER = Path("reason_seg") / "ReasonSeg"
SPLITS = ("train", "val", "test", "test_overall", "test_shortquery", "test_longquery")
TARGET = 1


@dataclass(frozen=True, eq=False)
class Annotation:
    """What one annotation file says."""

    path: str
    texts: tuple[str, ...]
    is_sentence: bool
    shapes: LabelMeFile
    false_premises: tuple[tuple[str, bool, str], ...] = ()
    """Question, whether it is a sentence, and answer; see `dataset.families.false_reason_seg`."""


def read_annotation(path: Path) -> Annotation:
    """Read and check one annotation file, all but the pixels of masks.

    Raises:
        DataError: naming the file and what is wrong with it.
    """
    try:
        content = read_json(path, kind=dict, decode=decode_western)
    except FileNotFoundError:
        raise DataError(path, "the annotation file does not exist; every .jpg needs a .json of the same name") from None
    texts = content.get("text")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise DataError(path, '"text" must be a list of at least one string')
    if not all(text.strip() for text in texts):
        raise DataError(path, '"text" holds an empty query; give every query some words')
    if not isinstance(content.get("shapes"), list):
        raise DataError(path, '"shapes" is missing; give a list of labelled polygons')
    is_sentence = content.get("is_sentence", False)
    if is_sentence not in (True, False):  # 1 and 0 as well
        raise DataError(path, f'"is_sentence" is {shown(is_sentence)}; it must be true or false, without quotes')
    return Annotation(
        path=str(path),
        texts=tuple(text.strip() for text in texts),
        is_sentence=bool(is_sentence),
        shapes=parse_labelme(content, path, fewest_corners=1),
        false_premises=_false_premises(content.get("false_premise_QA", []), path),
    )


def _false_premises(found: object, path: Path) -> tuple[tuple[str, bool, str], ...]:
    if not isinstance(found, list):
        raise DataError(
            path, f'"false_premise_QA" is {shown(found)}; it must be a list of [question, is_sentence, answer]'
        )
    for entry in found:
        kinds = isinstance(entry, list) and [type(value) for value in entry] == [str, bool, str]
        if not kinds or not entry[0].strip() or not entry[2].strip():
            raise DataError(
                path, f'"false_premise_QA" holds {shown(entry)}; every entry must be [question, true or false, answer]'
            )
    return tuple((question.strip(), is_sentence, answer.strip()) for question, is_sentence, answer in found)


def read_explanations(root: Path) -> dict[str, str]:
    """Explanation by the name of its annotation file."""
    path = root / FOLDER / "explanatory" / "train.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist, but --explanatory is on; put it there, or switch it off with --explanatory -1"
        )
    found: dict[str, str] = {}
    for entry in read_json(path, kind=list, decode=decode_western):
        texts = [entry.get(key) for key in ("image", "outputs")] if isinstance(entry, dict) else [None]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise DataError(path, f'entry {shown(entry, 80)} needs "image" and a non-empty "outputs"')
        name = entry.get("json") or f"{PurePosixPath(entry['image']).stem}.json"
        if not isinstance(name, str):
            raise DataError(path, f'"json" is {shown(name)}; it must be the name of an annotation file')
        found[PurePosixPath(name).name] = entry["outputs"].strip()
    return found


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and the annotation of each query about it."""

    path: Path
    annotations: tuple[Annotation, ...]

    def painted(self, annotation: Annotation, size: tuple[int, ...]) -> np.ndarray:
        """(H, W) uint8 of an annotation of the image of (height, width): 1 target, 255 ignore."""
        return annotation.shapes.painted(*size[:2])

    def objects(self, annotation: Annotation, painted: np.ndarray) -> np.ndarray:
        """(m, H, W) boolean of each target polygon, as far as `painted` shows it; those of which it shows nothing are
        left out."""
        shown = annotation.shapes.target_regions(*painted.shape) & (painted == TARGET)
        return shown[shown.any(axis=(1, 2))]

    def files(self) -> tuple[Path, ...]:
        """Image and annotations."""
        return self.path, *(Path(annotation.path) for annotation in self.annotations)


def _by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Files by their name without suffix; a name may be decomposed Unicode on disk.

    Raises:
        DataError: if two files have the same.
    """
    found: dict[str, Path] = {}
    for path in files:
        stem = unicodedata.normalize("NFC", path.stem)
        if found.setdefault(stem, path) != path:
            raise DataError(
                path, f"it differs from {found[stem].name} in the suffix alone, but annotations are found by the name"
            )
    return found


def _owners(images: dict[str, Path], texts: dict[str, Path]) -> dict[str, list[Path]]:
    """Annotation files of each image by its stem: NAME.json, then NAME.2.json, NAME.3.json, ..., in sorted order.

    Raises:
        DataError: if an image has no NAME.json, or a file belongs to no image.
    """
    owned: dict[str, list[Path]] = {stem: [] for stem in images}
    for stem, path in texts.items():
        name, _, number = stem.rpartition(".")
        # A file whose own image is there is that image's alone, whatever its name.
        owner = stem if stem in images else name if number.isdecimal() else stem
        if owner not in images:
            raise DataError(path, f"there is no image {stem}.jpg; add it, or remove the file")
        owned[owner].append(path)
    for stem, image in images.items():
        if stem not in texts:
            missing = image.with_suffix(".json")
            raise DataError(missing, "the annotation file does not exist; every .jpg needs a .json of the same name")
    return {stem: [texts[stem], *(path for path in paths if path != texts[stem])] for stem, paths in owned.items()}


def read_split(root: str | Path, split: str, *, folder: Path = FOLDER) -> list[AnnotatedImage]:
    """Images of a split in sorted order, with their annotations.

    Args:
        root: the folder that holds `reason_seg/`.
        split: `train`, `val`, `test`, `test_overall` (all of test), `test_shortquery`, `test_longquery` (phrases or
            sentences of test).
        folder: of the set below `root`.

    Raises:
        FileNotFoundError: if the folder is missing or empty.
        DataError: for an unknown split or a malformed annotation.
    """
    if split not in SPLITS:
        raise DataError(f"ReasonSeg|{split}", f"no such split; allowed: {', '.join(SPLITS)}")
    place = folder / split.split("_")[0]
    folder = Path(root) / place
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist; --dataset_dir must hold {place} with .jpg and .json")
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    images = _by_stem(path for path in files if path.suffix.lower() in (".jpg", ".jpeg"))
    if not images:
        raise FileNotFoundError(f"{folder} holds no .jpg image; fetch ReasonSeg again or run scripts.make_scenes")
    owned = _owners(images, _by_stem(path for path in files if path.suffix.lower() == ".json"))
    found = [AnnotatedImage(image, tuple(map(read_annotation, owned[stem]))) for stem, image in images.items()]
    if not split.endswith("query"):
        return found
    wanted = split == "test_longquery"
    kept = [AnnotatedImage(i.path, tuple(a for a in i.annotations if a.is_sentence == wanted)) for i in found]
    return [image for image in kept if image.annotations]
