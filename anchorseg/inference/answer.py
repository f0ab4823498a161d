"""Answers: the masks of their targets with the text, as pictures, and as files that other tools read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anchorseg.inference import export
from utils.errors import InputError
from utils.files import to_json, write_json
from utils.overlay import overlay
from utils.pictures import save_picture


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Target:
    """One segmented target.

    Attributes:
        mask: (H, W) boolean at the image's own size.
        score: mean probability of the mask's pixels, 0.5 to 1; 0 where the mask has none.
        prior: (H, W) float32 token-to-mask map in [0, 1], or None where the method computes none.
        phrase: the text of the answer just before the target.
        anchor_priors: (A, H, W) float32 maps of each of a target's anchors, or None where it has one.
        parts: (A, H, W) boolean mask of each anchor, or None unless anchors were matched with objects in training.
        token_maps: by the name of each token of the query bank, `<SEG>` last, its (H, W) float32 similarity map in
            [0, 1] (paper, Fig. 3); None unless they were asked for.
    """

    mask: np.ndarray
    score: float
    prior: np.ndarray | None
    phrase: str
    anchor_priors: np.ndarray | None = None
    parts: np.ndarray | None = None
    token_maps: Mapping[str, np.ndarray] | None = None

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(np.count_nonzero(self.mask))

    def __repr__(self) -> str:
        return f"Target({self.area} pixels, score {self.score:.3f}, phrase {self.phrase!r})"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Answer:
    """What the model answered to one question about one image.

    Attributes:
        query: as it was asked.
        prompt: as it was sent.
        text: what the model wrote.
        targets: in the order of the text; none: it found no target.
        image: (H, W, 3) uint8 RGB.
        complete: false where the answer reached `max_new_tokens` before its end.
        dialogue: ids of the prompt and the answer, and of those before them, for a follow-up question.
    """

    query: str
    prompt: str
    text: str
    targets: tuple[Target, ...]
    image: np.ndarray
    complete: bool = True
    dialogue: tuple[int, ...] = field(default=())

    @property
    def has_target(self) -> bool:
        """False for "no target"."""
        return bool(self.targets)

    @property
    def mask(self) -> np.ndarray | None:
        """Union (H, W) of all targets' masks, or None without a target."""
        return np.any([target.mask for target in self.targets], axis=0) if self.targets else None

    def __repr__(self) -> str:
        found = ", ".join(map(repr, self.targets)) or "no target"
        return f"Answer({self.query!r} -> {self.text!r}: {found})"

    def overlay(self) -> np.ndarray:
        """The image with each target in a colour of its own, (H, W, 3) uint8 RGB."""
        return overlay(self.image, [target.mask for target in self.targets])

    def to_coco(self, image_id: int | str = 1, category_id: int = 1) -> list[dict[str, Any]]:
        """Each target as an entry of a COCO results file: run lengths, bbox [x, y, width, height], area, score.

        `COCO.loadRes` takes the area of `bbox` for that of the mask where an entry has one; leave it out where areas
        count.

        Args:
            image_id: of the image in its COCO file, a whole number where pycocotools shall read it.
            category_id: of the targets.
        """
        return [
            export.coco_result(target.mask, target.score, image_id=to_json(image_id), category_id=to_json(category_id))
            for target in self.targets
        ]

    def to_labelme(self, image_path: str, label: str | None = None) -> dict[str, Any]:
        """The content of a LabelMe file with a mask for each target that has a pixel.

        Args:
            image_path: name of the image file as seen from the LabelMe file.
            label: of all targets; None for the query. A label with "ignore" in it marks pixels that are left out where
                the file is read for training.
        """
        masks = [target.mask for target in self.targets]
        return export.labelme_file(masks, label or self.query, image_path, self.image.shape[:2])

    def to_dict(self) -> dict[str, Any]:
        """Question, answer and targets as JSON holds them, masks as run lengths."""
        targets = [
            {**export.run_lengths(target.mask), "score": round(target.score, 6), "phrase": target.phrase}
            for target in self.targets
        ]
        return {
            "query": self.query,
            "prompt": self.prompt,
            "text": self.text,
            "complete": self.complete,
            "targets": targets,
        }

    def save(self, folder: str | Path, name: str = "answer") -> list[Path]:
        """Write the overlay, a PNG mask (0 and 255) for each target, and the answer as JSON into a folder.

        Args:
            folder: is made if it is not there.
            name: of the files, without suffix.

        Returns:
            What was written: NAME.overlay.png, NAME.answer.json, NAME.mask1.png, NAME.mask2.png, ...

        Raises:
            InputError: for a name with a folder in it.
            OutputError: if a file cannot be written.
        """
        if Path(name).name != name:
            raise InputError(f"the name of saved files is {name!r}; give one without folders")
        folder = Path(folder)
        picture, content = folder / f"{name}.overlay.png", folder / f"{name}.answer.json"
        save_picture(picture, self.overlay())
        write_json(content, self.to_dict())
        masks = [folder / f"{name}.mask{number}.png" for number in range(1, len(self.targets) + 1)]
        for path, target in zip(masks, self.targets, strict=True):
            save_picture(path, export.mask_picture(target.mask))
        return [picture, content, *masks]
