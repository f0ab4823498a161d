"""Polygon files and COCO segmentations: painting order, outlines, all five forms, errors."""

import copy

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dataset.masks import decode_segmentation, paint_shapes
from utils.errors import DataError


def shape(label: str, *points: tuple[float, float]) -> dict:
    return {"label": label, "points": [list(point) for point in points]}


def square(label: str, start: float, side: int) -> dict:
    stop = start + side - 1
    return shape(label, (start, start), (stop, start), (stop, stop), (start, stop))


def paint(*shapes: dict, size: tuple[int, int] = (60, 70)) -> np.ndarray:
    return paint_shapes(list(shapes), *size, path="a.json")


def test_ignore_inside_a_target_and_no_flag():
    painted = paint(square("target", 10, 40), square("Ignore this", 20, 8), square("FLAG", 0, 5))
    assert painted.dtype == np.uint8
    assert (painted == 255).sum() == 64 and (painted[20:28, 20:28] == 255).all()
    assert (painted == 1).sum() == 40 * 40 - 64 and painted[:10].max() == 0


def test_smaller_shapes_win_whatever_the_file_order():
    small_target = paint(square("target", 20, 8), square("ignore", 10, 40))
    assert (small_target == 1).sum() == 64 and (small_target == 255).sum() == 40 * 40 - 64


def test_equal_areas_are_painted_in_file_order():
    assert (paint(square("ignore", 10, 8), square("target", 10, 8)) != 255).all()
    assert (paint(square("target", 10, 8), square("ignore", 10, 8)) != 1).all()


def test_outline_belongs_to_the_shape():
    flat = paint(shape("target", (5, 5), (15, 5), (10, 5)))
    assert flat.sum() == 11 and flat[5, 5:16].all()
    assert paint(shape("target", (5.9, 6.9))).nonzero() == (6, 5)


def test_points_are_truncated():
    assert (paint(square("target", 10.9, 8)) == paint(square("target", 10, 8))).all()
    assert paint(shape("target", (-0.9, 0), (3, 0), (3, 3), (-0.9, 3)))[0, 0] == 1


def test_halves_on_an_edge_round_outwards():
    painted = paint(shape("target", (20, 5), (38, 8), (30, 40)))
    assert painted[10, 38] == 1 and painted[10, 39] == 0


def test_interior_is_opencvs_but_for_edge_pixels():
    generator = np.random.default_rng(0)
    for _ in range(50):
        points = generator.integers([0, 0], [70, 60], (6, 2))
        drawn = np.zeros((60, 70), np.uint8)
        cv2.fillPoly(drawn, [points.astype(np.int32)], 1)
        painted = paint(shape("target", *points.tolist()))
        edge = cv2.dilate(drawn, np.ones((3, 3))) - cv2.erode(drawn, np.ones((3, 3)))
        assert (painted == drawn)[edge == 0].all() and (painted != drawn).mean() < 0.03


def test_shapes_may_stick_out():
    around = paint(shape("target", (-10, -10), (200, -10), (200, 200), (-10, 200)))
    assert (around == 1).all()
    corner = paint(shape("target", (-5, -5), (4, -5), (4, 4), (-5, 4)))
    assert corner.sum() == 25 and corner[:5, :5].all()


def test_no_shapes_paint_nothing():
    assert not paint().any() and paint().shape == (60, 70)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"label": "target"}, "not a list"),
        (None, "not a list"),
        (["target"], "shape 0 has no label"),
        ([{"points": [[1, 2]]}], "shape 0 has no label"),
        ([{"label": 3, "points": [[1, 2]]}], "shape 0 has no label"),
        ([{"label": "flag"}, {"label": "target"}], "shape 1 has no points"),
        ([{"label": "target", "points": []}], "has no points"),
        ([{"label": "target", "points": "1, 2"}], "has no points"),
        ([{"label": "target", "points": [[1, 2, 3]]}], "pair"),
        ([{"label": "target", "points": [["1", "2"]]}], "pair"),
        ([{"label": "target", "points": [[1, None]]}], "pair"),
        ([{"label": "target", "points": [[1, float("nan")]]}], "finite"),
        ([{"label": "target", "points": [[float("inf"), 1]]}], "finite"),
        ([{"label": "target", "points": [[1e12, 1]]}], "pixels of the image"),
        ([shape("target", (100, 100), (120, 100), (120, 120))], "outside the image of 60 x 70"),
    ],
)
def test_malformed_shapes_are_named(shapes, message):
    with pytest.raises(DataError, match=message) as caught:
        paint_shapes(shapes, 60, 70, path="folder/a.json")
    assert caught.value.path == "folder/a.json"


RING = [5.0, 5.0, 25.0, 5.0, 25.0, 15.0, 5.0, 15.0]
HEIGHT, WIDTH = 30, 40


def five_forms() -> dict[str, object]:
    compressed = coco_mask.merge(coco_mask.frPyObjects([RING], HEIGHT, WIDTH))
    plane = coco_mask.decode(compressed).flatten(order="F")
    changes = np.flatnonzero(np.diff(plane)) + 1
    runs = np.diff([0, *changes, plane.size]).tolist()
    text = compressed["counts"].decode()
    size = [HEIGHT, WIDTH]
    return {
        "polygons": [RING],
        "list of RLE": [{"size": size, "counts": text}],
        "runs": {"size": size, "counts": runs},
        "text": {"size": size, "counts": text},
        "bytes": {"size": size, "counts": compressed["counts"]},
    }


@pytest.mark.parametrize("form", sorted(five_forms()))
def test_all_forms_decode_alike(form):
    segmentation = five_forms()[form]
    before = copy.deepcopy(segmentation)
    mask = decode_segmentation(segmentation, HEIGHT, WIDTH)
    assert mask.dtype == bool and mask.shape == (HEIGHT, WIDTH)
    assert mask.sum() == 200 and mask[5:15, 5:25].all()
    assert segmentation == before


def test_nothing_decodes_to_nothing():
    assert not decode_segmentation([], HEIGHT, WIDTH).any()
    assert not decode_segmentation([[1.0, 2.0, 3.0, 4.0]], HEIGHT, WIDTH).any()


def test_overlapping_parts_are_united():
    shifted = [value + 5 for value in RING]
    both = decode_segmentation([RING, shifted], HEIGHT, WIDTH)
    single = [decode_segmentation([ring], HEIGHT, WIDTH) for ring in (RING, shifted)]
    assert (both == (single[0] | single[1])).all()
    text = five_forms()["text"]
    assert (decode_segmentation([text, text], HEIGHT, WIDTH) == single[0]).all()


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "NoneType"),
        (RING, "list of rings"),
        ([RING, {"size": [HEIGHT, WIDTH], "counts": [1200]}], "list of rings"),
        ([[1.0] * 7], "7 entries"),
        ([["a"] * 6], "finite numbers"),
        ({"size": [WIDTH, HEIGHT], "counts": [1200]}, "size"),
        ({"counts": [1200]}, "size"),
        ({"size": [HEIGHT, WIDTH], "counts": [1199]}, "1199 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [-1, 1201]}, "whole numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": None}, "counts"),
        ({"size": [HEIGHT, WIDTH], "counts": "abc"}, "cannot be decoded"),
    ],
)
def test_malformed_segmentations_are_named(segmentation, message):
    with pytest.raises(DataError, match=message) as caught:
        decode_segmentation(segmentation, HEIGHT, WIDTH, path="instances.json: annotation 7")
    assert caught.value.path == "instances.json: annotation 7"


def test_a_ring_far_outside_is_refused_before_it_is_drawn():
    with pytest.raises(DataError, match="a coordinate beyond 1000000"):
        decode_segmentation([[0, 0, 1e9, 0, 5, 5]], 20, 20, path="record")
