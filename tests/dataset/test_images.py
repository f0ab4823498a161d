"""Image files: bits, palettes, rotation and size as the file has them; what is no image is refused, not waited for."""

import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from dataset.images import image_size, read_image, read_label_map, read_mask
from utils.errors import DataError

READERS = (read_image, read_label_map, read_mask, image_size)
NUMBERS = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 1, 1]], np.uint8)


def png(depth: int, values: np.ndarray) -> bytes:
    """A grey PNG with the values packed in `depth` bits."""
    bits = np.unpackbits(values[..., None], axis=-1)[..., 8 - depth :].reshape(len(values), -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=-1))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", values.shape[1], len(values), depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_of_few_bits_has_the_numbers_of_the_file(tmp_path, depth):
    values = (NUMBERS * ((1 << depth) - 1)).astype(np.uint8)
    values[0, 0] = min(1, values.max())
    (tmp_path / "a.png").write_bytes(png(depth, values))
    assert np.array_equal(read_label_map(tmp_path / "a.png"), values)
    assert np.array_equal(read_mask(tmp_path / "a.png"), values > 0)


@pytest.mark.parametrize("colours", [(0, 255), (255, 0)])
@pytest.mark.parametrize("bits", [1, 2, 8])
def test_of_a_mask_the_colours_count_and_of_a_label_map_the_indices(tmp_path, colours, bits):
    picture = Image.fromarray(NUMBERS)
    picture.putpalette([value for colour in colours for value in (colour,) * 3])
    picture.save(tmp_path / "a.png", bits=bits)
    assert np.array_equal(read_mask(tmp_path / "a.png"), (1 if colours[1] else 0) == NUMBERS)
    assert np.array_equal(read_label_map(tmp_path / "a.png"), NUMBERS)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGB", "I;16", "1"])
def test_masks_in_colour_with_transparency_or_16_bits(tmp_path, mode):
    grey = NUMBERS * 200
    if mode == "I;16":
        picture = Image.fromarray(NUMBERS.astype(np.uint16) * 300)
    elif mode in ("RGBA", "LA"):
        white = Image.fromarray(np.full_like(grey, 255)).convert(mode)
        white.putalpha(Image.fromarray(grey))
        picture = white
    else:
        picture = Image.fromarray(grey).convert(mode)
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png"), NUMBERS > 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_turned_as_photographs_are(tmp_path, orientation):
    values = np.zeros((32, 48), np.uint8)
    values[4:12, 30:44] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(values).convert("RGB").save(tmp_path / "photo.jpg", exif=exif, quality=95)
    Image.fromarray(values).save(tmp_path / "mask.png", exif=exif)
    photo = read_image(tmp_path / "photo.jpg")
    assert photo.shape[:2] == image_size(tmp_path / "photo.jpg") == image_size(tmp_path / "mask.png")
    for mask in (read_mask(tmp_path / "mask.png"), read_label_map(tmp_path / "mask.png") > 0):
        assert mask.shape == photo.shape[:2] and np.mean((photo[..., 0] > 127) == mask) > 0.99


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["a folder", "a named pipe", "a device", "nothing", "empty", "a web page", "Git LFS"])
def test_what_is_no_image_is_named(tmp_path, reader, kind):
    path = tmp_path / "a.png"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind != "nothing":
        contents = {
            "empty": b"",
            "a web page": b"<html></html>",
            "Git LFS": b"version https://git-lfs.github.com/spec/v1",
        }
        path.write_bytes(contents[kind])
    with pytest.raises(DataError, match="does not exist" if kind == "nothing" else kind) as caught:
        reader(path)
    assert caught.value.path == str(path)


@pytest.mark.parametrize("reader", READERS)
def test_enormous_images_are_refused_by_their_header(tmp_path, reader):
    rows = zlib.compress(bytes(1 + 50_000 // 8) * 10)
    head = struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(DataError, match="too large"):
        reader(tmp_path / "a.png")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_that_is_cut_short_is_refused(tmp_path, share, suffix):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = cv2.imencode(suffix, image)[1].tobytes()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"cut short|damaged|be decoded"):
        read_image(path)


def palette_mask(path, colours, numbers):
    image = Image.fromarray(np.array(numbers, np.uint8))
    image.putpalette([level for colour in colours for level in colour])
    image.save(path)


BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (200, 0, 0)


@pytest.mark.parametrize(
    ("colours", "wanted"),
    [((BLACK, WHITE), [[False, True]]), ((WHITE, BLACK), [[True, False]]), ((RED, BLACK), [[True, False]])],
)
def test_the_visible_colour_of_a_palette_is_the_mask_whatever_its_number(tmp_path, colours, wanted):
    palette_mask(tmp_path / "a.png", colours, [[0, 1]])
    assert read_mask(tmp_path / "a.png").tolist() == wanted


@pytest.mark.parametrize("colours", [(WHITE, RED), (BLACK, BLACK), (RED, RED)])
def test_a_palette_that_does_not_tell_the_background_is_refused(tmp_path, colours):
    palette_mask(tmp_path / "a.png", colours, [[0, 1]])
    with pytest.raises(DataError, match="none or all colours of its palette are black"):
        read_mask(tmp_path / "a.png")


def test_a_black_drawing_on_a_transparent_ground_is_the_mask(tmp_path):
    Image.fromarray(np.array([[[0, 0, 0, 255], [0, 0, 0, 0]]], np.uint8)).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[True, False]]


@pytest.mark.parametrize("reader", [read_mask, read_label_map, read_image])
def test_no_flipped_bit_of_a_png_goes_unnoticed(tmp_path, reader):
    generator = np.random.default_rng(0)
    mask = (generator.random((40, 60)) > 0.5).astype(np.uint8) * 255
    content = cv2.imencode(".png", mask)[1].tobytes()
    for place in generator.integers(33, len(content) - 16, 60):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(generator.integers(8))
        (tmp_path / "a.png").write_bytes(bytes(damaged))
        with pytest.raises(DataError):
            reader(tmp_path / "a.png")
