"""Views, patch validity and polygons of preprocess.npz; the CLIP view has SAM's statistics, as published."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dataset.masks import paint_shapes
from tests.parity.reference import ANNOTATION, Reference
from utils import geometry

SIDES = {"sam": 1024, "clip": 336}


@pytest.mark.parametrize("which", ["0", "1", "2"])
@pytest.mark.parametrize("view", sorted(SIDES))
def test_views(reference: Reference, which: str, view: str) -> None:
    image, side = reference.load(f"preprocess/{which}.raw"), SIDES[view]
    reference.assert_matches(f"preprocess/{which}.{view}_resized_u8", geometry.resize_longest_side(image, side))
    made = geometry.make_view(image, side, geometry.SAM_MEAN, geometry.SAM_STD)
    reference.assert_matches(f"preprocess/{which}.{view}", made.pixels, 1e-6)
    reference.assert_matches(f"preprocess/{which}.{view}_resize", np.array(made.size))


@pytest.mark.parametrize("which", ["0", "1", "2"])
def test_patch_validity(reference: Reference, which: str) -> None:
    size = geometry.longest_side_size(reference.load(f"preprocess/{which}.raw").shape[:2], 336)
    valid = geometry.patch_validity(size, 336, 24).float()
    reference.assert_matches(f"preprocess/{which}.mask_for_llm", valid, 0)
    reference.assert_matches(f"preprocess/{which}.vit_attention_mask", np.concatenate([[1.0], valid]), 0)


def test_polygons(reference: Reference) -> None:
    shapes = json.loads(ANNOTATION.read_text())["shapes"]
    painted = paint_shapes(shapes, 80, 120, path=ANNOTATION)
    reference.assert_matches("preprocess/json.mask", painted)
    reference.assert_matches("preprocess/json.train_mask", (painted == 1).astype(np.uint8))
