"""Run lengths fill the image exactly, or are refused: no pixel is ever memory that nobody wrote."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dataset.masks import decode_segmentation
from utils.errors import DataError

SIZE = (60, 80)


def disc() -> np.ndarray:
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    return (rows - 30) ** 2 + (columns - 35) ** 2 < 400


def encoded(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


KINDS = ("noise", "sparse", "empty", "full", "one pixel", "last pixel", "blocks", "one column")


@pytest.mark.parametrize("kind", KINDS)
def test_texts_decode_as_pycocotools_encoded_them(kind):
    rng = np.random.default_rng(3)
    for _ in range(20):
        height, width = rng.integers(1, 90, 2).tolist() if kind != "one column" else (400, 1)
        mask = rng.random((height, width)) < {"noise": 0.5, "sparse": 0.02, "full": 2, "one column": 0.3}.get(kind, -1)
        if kind == "one pixel":
            mask[rng.integers(height), rng.integers(width)] = True
        if kind == "last pixel":
            mask[-1, -1] = True
        if kind == "blocks":
            mask[: height // 2, width // 3 :] = True
        packed = encoded(mask)
        for counts in (packed["counts"], packed["counts"].decode()):
            found = decode_segmentation({"size": [height, width], "counts": counts}, height, width)
            assert np.array_equal(found, mask)


TEXT = encoded(disc())["counts"].decode()
BAD = {
    "empty": "",
    "cut": TEXT[: len(TEXT) // 2],
    "cut by one": TEXT[:-1],
    "longer": TEXT + TEXT[-1],
    "goes on at the end": TEXT[:-1] + "o",
    "foreign letters": TEXT[:5] + "~" + TEXT[6:],
    "not ASCII": TEXT[:5] + "é" + TEXT[6:],
    "bytes beyond": b"\xff" + TEXT.encode()[1:],
    "a number of 60 bits": "o" * 12 + "0",
    "no runs": [],
    "too few pixels": [10, 20],
    "too many pixels": [0, 60 * 80 + 1],
    "negative": [-1, 60 * 80 + 1],
    "huge": [10**400],
    "truth values": [True, 60 * 80 - 1],
    "numbers as text": ["4800"],
    "fractions": [4800.0],
    "a number": 4800,
    "nothing": None,
}


@pytest.mark.parametrize("kind", BAD)
def test_what_does_not_fill_the_image_is_refused(kind):
    for value in ({"size": list(SIZE), "counts": BAD[kind]}, [{"size": list(SIZE), "counts": BAD[kind]}]):
        with pytest.raises(DataError, match=r"a\.json: .*(write it again|must be a text|below 0)"):
            decode_segmentation(value, *SIZE, path="a.json")


SIZES = [[80, 60], [60, 81], [6, 8], [], None, [60], [60, 80, 1], "60,80", [60, "80"], [1e400, 80]]


@pytest.mark.parametrize("size", SIZES)
def test_the_size_of_another_image_is_refused(size):
    with pytest.raises(DataError, match="a run-length mask has size"):
        decode_segmentation({"size": size, "counts": TEXT}, *SIZE)


@pytest.mark.parametrize("reach", [1e6, 3e5, 1e9, 1e308])
def test_rings_far_outside_are_refused_before_they_take_the_memory(reach):
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="a polygon ring"):
        decode_segmentation([((rng.random(40) * 2 - 1) * reach).tolist()], *SIZE)


def test_rings_that_reach_out_of_the_image_are_cut():
    mask = decode_segmentation([[-50, 10, 500, 10, 500, 20, -50, 20]], *SIZE)
    assert mask[10:20].all() and mask.sum() == 10 * 80
