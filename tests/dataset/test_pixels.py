"""Pixels that libraries decide, pinned by what they are: a release that decodes or draws otherwise fails here.

`utils.geometry.pixel_digest` does the same for resizes. Digests made with OpenCV 4.10 and 5.0, pycocotools 2.0.
"""

import zlib
from pathlib import Path

import numpy as np

from dataset.images import read_image
from dataset.masks import decode_segmentation, fill_polygon


def test_jpeg_decoder():
    """waves.jpg has odd sides and halved colour resolution, where decoders differ."""
    image = read_image(Path(__file__).parent / "waves.jpg")
    assert image.shape == (21, 37, 3) and zlib.crc32(image[..., ::-1].tobytes()) == 0x338C631C


def test_polygon_and_its_outline():
    points = np.array([[3, 2], [50, 9], [44, 37], [20, 12], [-5, 30]], np.int32)
    assert zlib.crc32(fill_polygon(points, 41, 53).tobytes()) == 0x0BB2A0AE


def test_ring_of_coco():
    ring = [3.5, 2.2, 50.1, 9, 44.7, 37.3, 20, 12]
    assert zlib.crc32(decode_segmentation([ring], 41, 53).tobytes()) == 0x2AC1E077
