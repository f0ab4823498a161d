"""Polygon files and COCO segmentations: painting order, outlines, all five forms, errors."""

import copy

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dataset.masks import decode_segmentation
from dataset.readers.labelme import paint_shapes
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
        ({"label": "target"}, "must be a list"),
        (None, "must be a list"),
        (["target"], "shape 0 is .target.: it must be an object"),
        ([{"points": [[1, 2]]}], "shape 0 has no .label."),
        ([{"label": 3, "points": [[1, 2]]}], "shape 0: .label. is 3"),
        ([{"label": "flag"}, {"label": "target"}], "shape 1 has no points"),
        ([{"label": "target", "points": []}], "has no points"),
        ([{"label": "target", "points": "1, 2"}], "has no points"),
        ([{"label": "target", "points": [[1, 2, 3]]}], "pair"),
        ([{"label": "target", "points": [["1", "2"]]}], "pair"),
        ([{"label": "target", "points": [[1, None]]}], "pair"),
        ([{"label": "target", "points": [[1, float("nan")]]}], "finite"),
        ([{"label": "target", "points": [[float("inf"), 1]]}], "finite"),
        ([{"label": "target", "points": [[1e12, 1]]}], "pixels of the image"),
        ([shape("target", (100, 100), (120, 100), (120, 120))], "no pixel in the image of 60 x 70"),
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
        ({"size": [HEIGHT, WIDTH], "counts": "abc"}, "cut off"),
        ({"size": [HEIGHT, WIDTH], "counts": ""}, "cover 0 pixels, but the image has 1200"),
        ({"size": [HEIGHT, WIDTH], "counts": []}, "cover 0 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": "0"}, "cover 0 pixels"),
        ([{"size": [HEIGHT, WIDTH], "counts": ""}], "cover 0 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [1200, 1]}, "cover 1201 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [True, 1199]}, "list of whole numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": [0.5, 1199.5]}, "list of whole numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": [1 << 33, 1200 - (1 << 33)]}, "below 0"),
        ({"size": [HEIGHT, WIDTH], "counts": "oooooooo0"}, "longer than any picture"),
        ({"size": [HEIGHT, WIDTH], "counts": "\u00e9"}, "not ASCII"),
        ({"size": [HEIGHT, WIDTH], "counts": b"\xff\x01"}, "cut off"),
        ({"size": [30.0, 40.0], "counts": [1200]}, "size"),
        ({"size": [10**5000, 40], "counts": [1200]}, "size"),
        ({"size": "30x40", "counts": [1200]}, "size '30x40'"),
        ([[10**400] * 6], "finite numbers"),
        ([[float("nan")] * 6], "finite numbers"),
        ([[float("inf"), 0, 1, 2, 3, 4]], "finite numbers"),
    ],
)
def test_malformed_segmentations_are_named(segmentation, message):
    with pytest.raises(DataError, match=message) as caught:
        decode_segmentation(segmentation, HEIGHT, WIDTH, path="instances.json: annotation 7")
    assert caught.value.path == "instances.json: annotation 7"


def test_a_ring_far_outside_is_refused_before_it_is_drawn():
    for far in (1e6, -1e6, 1e9, 1e10):
        with pytest.raises(DataError, match="a coordinate beyond 100000"):
            decode_segmentation([[0, 0, far, 0, 5, 5]], 20, 20, path="record")
    assert decode_segmentation([[-99_000, -99_000, 99_000, -99_000, 99_000, 99_000, -99_000, 99_000]], 20, 20).all()


def test_a_ring_that_winds_too_long_is_refused():
    with pytest.raises(DataError, match="pixels long, more than 5000000"):
        decode_segmentation([[-99_000, 0, 99_000, 5] * 40], 20, 20, path="record")


@pytest.mark.parametrize("seed", range(40))
def test_compressed_runs_equal_pycocotools(seed):
    generator = np.random.default_rng(seed)
    height, width = generator.integers(1, 60, 2).tolist()
    mask = (generator.random((height, width)) < generator.random()).astype(np.uint8)
    mask[: height * (seed % 3) // 2] = seed % 2
    text = coco_mask.encode(np.asfortranarray(mask))
    assert (decode_segmentation(text, height, width) == mask).all()
    for cut in range(1, len(text["counts"])):
        with pytest.raises(DataError):
            decode_segmentation({**text, "counts": text["counts"][:cut]}, height, width)


def test_a_size_that_no_picture_has_is_refused_before_memory_is_taken():
    with pytest.raises(DataError, match="pictures have 1 to"):
        decode_segmentation([RING], 1_000_000, 1_000_000, path="record")
