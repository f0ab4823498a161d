"""preprocess.npz: views, patch validity and polygons; the CLIP view has SAM's statistics, as published."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from dataset.readers.labelme import paint_shapes
from tests.parity.context import Context
from tests.parity.reference import Fixture
from tests.parity.samples import ReferenceFileError
from utils import geometry

SIDES = {"sam": 1024, "clip": 336}
GRID = 24
ANNOTATION = "preprocess_anno.json"
EDGE_SHARE = 1e-3
"""Share of the pixels that may differ: OpenCV's releases draw polygon edges differently."""


def check_preprocess(fixture: Fixture, context: Context) -> None:
    """Every array of preprocess.npz."""
    for which in [name.removesuffix(".raw") for name in fixture.names if name.endswith(".raw")]:
        _check_image(fixture, which)
    _check_polygons(fixture, context)


def _check_image(fixture: Fixture, which: str) -> None:
    image = fixture.input(f"{which}.raw")
    for view, side in SIDES.items():
        made = geometry.PaddedView(side=side, grid=GRID, mean=geometry.SAM_MEAN, std=geometry.SAM_STD)
        resized, pixels, note = geometry.resize_longest_side(image, side), made.pixels(image), ""
        other = height_first(image, side)
        if fixture.agrees(f"{which}.{view}_resized_u8", other) and not np.array_equal(other, resized):
            resized, note = other, "made with Pillow 13 or later: height first; here width first"
            pixels = geometry.normalize_and_pad(resized, side, geometry.SAM_MEAN, geometry.SAM_STD)
        fixture.check(f"{which}.{view}_resized_u8", resized, note=note)
        fixture.check(f"{which}.{view}", pixels, note=note)
        fixture.check(f"{which}.{view}_resize", np.array(made.frame(image.shape[:2]).content))
    valid = geometry.patch_validity(geometry.padded_frame(image.shape[:2], SIDES["clip"], GRID))
    fixture.check(f"{which}.mask_for_llm", valid.float(), tolerance=0)
    fixture.check(f"{which}.vit_attention_mask", np.concatenate([[1.0], valid.float()]), tolerance=0)
    unpadded = f"{which}.clip_unpadded_variant"
    if unpadded in fixture:
        fixture.remark(unpadded, "CLIP's centre crop, which no published script uses and this project does not have")


def height_first(image: np.ndarray, side: int) -> np.ndarray:
    """The published code's pixels of a tall picture under Pillow 13, whose one call takes the height first there."""
    height, width = geometry.longest_side_size(image.shape[:2], side)
    shortened = Image.fromarray(image).resize((image.shape[1], height), Image.Resampling.BILINEAR)
    return np.array(shortened.resize((width, height), Image.Resampling.BILINEAR))


def _check_polygons(fixture: Fixture, context: Context) -> None:
    path = context.folder / ANNOTATION
    if not path.is_file():
        raise ReferenceFileError(f"{ANNOTATION}, the polygons of its json.* arrays, is missing; put it beside")
    expected = fixture.input("json.mask")
    height, width = expected.shape
    painted = paint_shapes(json.loads(path.read_text())["shapes"], height, width, path=path)
    for name, found in (("json.mask", painted), ("json.train_mask", painted == 1)):
        share = float((found != fixture.input(name)).mean())
        fixture.add(name, share <= EDGE_SHARE, share, "share of pixels that differ")
