"""Files of an answer: the picture, masks as PNG, and COCO results with the image they belong to."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from anchorseg.inference.answer import Answer
from anchorseg.inference.export import coco_result, mask_picture
from dataset.drawn.writer import jpeg
from scripts.page.pictures import screen_scale, shown_overlay
from utils.files import write_bytes

IMAGE_ID = CATEGORY_ID = 1


@dataclass(frozen=True, kw_only=True)
class Downloads:
    """Files of an answer; without a target that is shown, pictures alone.

    Attributes:
        screen: the picture as large as the page shows it.
        picture: at the image's size.
        coco: COCO results.
        masks: an archive.
    """

    screen: Path
    picture: Path
    coco: Path | None
    masks: Path | None


def write_downloads(answer: Answer, hidden: Collection[int], folder: Path) -> Downloads:
    """Write the files of an answer's shown targets into a new folder."""
    folder.mkdir(parents=True)
    shown = [number for number in range(1, len(answer.targets) + 1) if number not in hidden]
    screen, picture = folder / "screen.jpg", folder / "anchorseg.png"
    write_bytes(screen, jpeg(shown_overlay(answer, hidden, screen_scale(answer.image))), durable=False)
    write_bytes(picture, _png(shown_overlay(answer, hidden)), durable=False)
    if not shown:
        return Downloads(screen=screen, picture=picture, coco=None, masks=None)
    results = json.dumps(_results(answer, shown), indent=1).encode()
    coco, masks = folder / "coco_results.json", folder / "masks.zip"
    write_bytes(coco, results, durable=False)
    write_bytes(masks, _archive(answer, shown, results), durable=False)
    return Downloads(screen=screen, picture=picture, coco=coco, masks=masks)


def _results(answer: Answer, shown: Collection[int]) -> list[dict[str, Any]]:
    return [
        coco_result(target.mask, target.score, image_id=IMAGE_ID, category_id=CATEGORY_ID)
        for number, target in enumerate(answer.targets, start=1)
        if number in shown
    ]


def _archive(answer: Answer, shown: Collection[int], results: bytes) -> bytes:
    """Masks, the results again, and the COCO file of the one image, which `COCO.loadRes` needs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in shown:
            archive.writestr(f"mask{number}.png", _png(mask_picture(answer.targets[number - 1].mask)))
        archive.writestr("coco_results.json", results)
        archive.writestr("coco_image.json", json.dumps(_images_file(answer), indent=1))
    return buffer.getvalue()


def _images_file(answer: Answer) -> dict[str, Any]:
    height, width = answer.image.shape[:2]
    return {
        "info": {"description": answer.query},
        "images": [{"id": IMAGE_ID, "file_name": "image", "height": height, "width": width}],
        "categories": [{"id": CATEGORY_ID, "name": "target"}],
        "annotations": [],
    }


def _png(picture: np.ndarray) -> bytes:
    # Level 1: a visitor waits for it.
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return bytes(data.tobytes())
