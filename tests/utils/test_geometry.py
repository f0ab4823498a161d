"""Resizes, pads and crops: known sizes, whole-pixel round trips, small presets, errors."""

import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from utils import geometry
from utils.geometry import Frame, padded_frame

PRESETS = [(336, 24), (128, 16)]


def make_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((480, 640), 1024, (768, 1024)),
        ((700, 333), 336, (336, 160)),
        ((97, 1203), 336, (27, 336)),
        ((5, 3), 8, (8, 5)),
        ((1, 5000), 336, (1, 336)),
    ],
)
def test_longest_side_size(size, longest, expected):
    assert geometry.longest_side_size(size, longest) == expected


def test_an_image_of_the_right_size_is_untouched():
    image = make_image(100, 128)
    assert (geometry.resize_longest_side(image, 128) == image).all()


def test_pixels_are_those_of_the_published_code():
    """Digests made with Pillow 10.4, 12.0 and 13.0; an installed library that fails here moves masks."""
    assert geometry.pixel_digest(1024)[:16] == "1e7546144631609f"
    assert geometry.pixel_digest(336)[:16] == "8caa69241bb67060"


@pytest.mark.parametrize(
    ("size", "longest", "crc"),
    [
        ((901, 203), 336, 0x747FE694),  # tall, smaller
        ((333, 77), 1024, 0x349DCD12),  # tall, larger
        ((1203, 97), 337, 0xD5B45C57),  # tall, to an odd side
        ((97, 1203), 336, 0x65057887),  # wide, smaller
        ((77, 333), 1024, 0x97D62101),  # wide, larger
        ((1, 700), 336, 0x8378C11C),  # a line
        ((700, 1), 336, 0x85C22E69),
        ((481, 639), 1024, 0x9801DB12),
        ((2100, 1000), 336, 0x47FB584),
    ],
)
def test_pixels_of_one_picture(size, longest, crc):
    height, width = size
    y, x, channel = np.ogrid[:height, :width, :3]
    picture = ((3 * y * y + 5 * x * x + x * y + 77 * channel) % 251).astype(np.uint8)
    assert zlib.crc32(geometry.resize_longest_side(picture, longest).tobytes()) == crc


def test_view_is_normalized_inside_and_zero_outside():
    image = make_image(64, 128)
    view = geometry.PaddedView(side=128, grid=16, mean=geometry.SAM_MEAN, std=geometry.SAM_STD)
    pixels, frame = view.pixels(image), view.frame((64, 128))
    assert frame.content == (64, 128) and pixels.shape == (3, *frame.view) == (3, 128, 128)
    expected = (image[10, 20] - np.array(geometry.SAM_MEAN)) / np.array(geometry.SAM_STD)
    assert pixels[:, 10, 20].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert not pixels[:, 64:].any()


def test_clip_statistics_are_those_of_the_unit_scale():
    assert np.array(geometry.CLIP_MEAN) / 255 == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert np.array(geometry.CLIP_STD) / 255 == pytest.approx([0.26862954, 0.26130258, 0.27577711])


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_an_image_that_is_not_rgb_bytes_is_refused(image):
    with pytest.raises(ValueError, match="convert it to RGB"):
        geometry.resize_longest_side(image, 8)


@pytest.mark.parametrize(("side", "grid"), PRESETS)
@pytest.mark.parametrize("size", [(1, 1), (14, 15), (8, 9), (100, 128)])
def test_patch_validity_is_nearest_sampling(size, side, grid):
    content = torch.zeros(1, 1, side, side)
    content[..., : size[0], : size[1]] = 1
    expected = F.interpolate(content, (grid, grid), mode="nearest").bool().flatten()
    assert (geometry.patch_validity(Frame(size, (side, side), (grid, grid))) == expected).all()


@pytest.mark.parametrize(("side", "grid"), PRESETS)
def test_constant_responses_give_a_constant_map_and_prompt(side, grid):
    maps = geometry.tokens_to_map(torch.full((2, grid * grid), 0.25), padded_frame((30, 60), side, grid), (30, 60))
    assert maps.shape == (2, 30, 60) and (maps - 0.25).abs().max() < 1e-6
    prompt = geometry.map_to_prompt(maps, 64)
    assert prompt.shape == (2, 1, 64, 64)
    assert (prompt[:, :, :32] - 0.25).abs().max() < 1e-6 and not prompt[:, :, 32:].any()


def test_map_keeps_places():
    responses = torch.zeros(1, 256)
    responses[0, 5 * 16 + 9] = 1
    maps = geometry.tokens_to_map(responses, padded_frame((256, 256), 128, 16), (256, 256))
    y, x = divmod(int(maps.flatten().argmax()), 256)
    assert (y // 16, x // 16) == (5, 9)


def test_map_carries_gradients():
    responses = torch.rand(2, 256, requires_grad=True)
    geometry.map_to_prompt(
        geometry.tokens_to_map(responses, padded_frame((48, 64), 128, 16), (48, 64)), 64
    ).sum().backward()
    assert responses.grad is not None and responses.grad[:, : 12 * 16].abs().sum() > 0


def test_a_grid_need_not_be_square():
    frame = Frame((48, 96), (48, 96), (4, 8))
    responses = torch.zeros(1, 32)
    responses[0, 1 * 8 + 6] = 1
    maps = geometry.tokens_to_map(responses, frame, (96, 192))
    y, x = divmod(int(maps.flatten().argmax()), 192)
    assert (y // 24, x // 24) == (1, 6)
    masks = torch.zeros(1, 96, 192, dtype=torch.bool)
    masks[0, 24:48, 144:168] = True
    for mode in ("nearest", "area"):
        assert geometry.masks_to_tokens(masks, frame, mode=mode).flatten(1).argmax() == 1 * 8 + 6
    assert geometry.patch_validity(frame).tolist() == [True] * 32
    assert geometry.patch_validity(Frame((24, 48), (48, 96), (4, 8))).sum() == 2 * 4


@pytest.mark.parametrize("mode", ["nearest", "area"])
@pytest.mark.parametrize(("side", "grid"), PRESETS)
def test_a_mask_of_whole_patches_survives(side, grid, mode):
    coarse = (torch.rand(3, grid, grid) > 0.5).float()
    patch = side // grid
    masks = coarse.repeat_interleave(patch, 1).repeat_interleave(patch, 2).bool()
    assert torch.equal(geometry.masks_to_tokens(masks, padded_frame((side, side), side, grid), mode=mode), coarse)


def test_masks_to_tokens_pads_right_and_below():
    tokens = geometry.masks_to_tokens(torch.ones(1, 20, 40, dtype=torch.bool), padded_frame((20, 40), 128, 16))
    assert tokens[0, :8].min() == 1 and not tokens[0, 8:].any()


def test_area_keeps_the_small_object_that_nearest_loses():
    masks = torch.zeros(1, 128, 128, dtype=torch.bool)
    masks[0, 19:22, 35:38] = True
    frame = padded_frame((128, 128), 128, 16)
    assert geometry.masks_to_tokens(masks, frame).sum() == 0
    assert geometry.masks_to_tokens(masks, frame, mode="area")[0, 2, 4] == pytest.approx(9 / 64)


def test_unknown_sampling_is_refused():
    with pytest.raises(ValueError, match="'nearest' or 'area'"):
        geometry.masks_to_tokens(torch.ones(1, 4, 4), padded_frame((4, 4), 128, 16), mode="cubic")


def test_upscaled_masks_are_float32_and_cropped():
    low_res = torch.full((2, 64, 64), -1.0, dtype=torch.bfloat16)
    low_res[:, :32] = 1
    masks = geometry.upscale_masks(low_res, padded_frame((50, 100), 256, 16), (50, 100))
    assert masks.dtype == torch.float32 and masks.shape == (2, 50, 100)
    assert (masks[:, :48] > 0).all()


def test_an_image_without_targets_gives_empty_results():
    frame = padded_frame((48, 64), 128, 16)
    maps = geometry.tokens_to_map(torch.zeros(0, 256), frame, (48, 64))
    assert maps.shape == (0, 48, 64)
    assert geometry.map_to_prompt(maps, 64).shape == (0, 1, 64, 64)
    assert geometry.masks_to_tokens(torch.zeros(0, 48, 64, dtype=torch.bool), frame).shape == (0, 16, 16)
    assert geometry.upscale_masks(torch.zeros(0, 64, 64), frame, (48, 64)).shape == (0, 48, 64)


@pytest.mark.parametrize("size", [(60, 80), (90, 50), (64, 64), (41, 333)])
def test_a_crop_shows_the_middle(size):
    view = geometry.CroppedView(side=32, grid=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    frame = view.frame(size)
    image = np.zeros((*size, 3), np.uint8)
    image[..., 0] = np.arange(size[0])[:, None] * 255 // size[0]
    image[..., 1] = np.arange(size[1]) * 255 // size[1]
    pixels = view.pixels(image)
    assert pixels.shape == (3, 32, 32) and geometry.patch_validity(frame).all()
    middle = [float(pixels[channel].mean()) for channel in (0, 1)]
    assert middle == pytest.approx([127, 127], abs=5), "as much is cut off before as behind"
    assert min(frame.content) == 32 and max(frame.content) <= 32 * max(size) / min(size)
    shown = geometry.tokens_to_map(torch.ones(1, 64), frame, size)[0]
    share = min(size) / max(size)
    assert float(shown.mean()) == pytest.approx(share, abs=0.05)
    assert float(shown[size[0] // 2, size[1] // 2]) == pytest.approx(1)
    if share < 0.9:
        assert shown.flip(0, 1).isclose(shown, atol=0.05).all() and not shown[0, 0].isclose(torch.tensor(1.0))


@pytest.mark.parametrize("size", [(50, 20), (20, 50), (1, 90), (33, 33)])
def test_a_stretched_view_is_sam2s_and_maps_lie_in_it_as_the_image(size):
    view = geometry.StretchedView(side=32, grid=2, mean=geometry.SAM_MEAN, std=geometry.SAM_STD)
    image = make_image(*size)
    unit = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    resized = F.interpolate(unit, (32, 32), mode="bilinear", align_corners=False, antialias=True)[0]
    # ImageNet's statistics on the unit scale, after the resize.
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    torch.testing.assert_close(view.pixels(image), (resized - mean) / std, rtol=1e-5, atol=1e-5)
    frame = view.frame(size)
    assert frame == Frame((32, 32), (32, 32), (2, 2)) and geometry.patch_validity(frame).all()
    grey = torch.tensor(image[None, :, :, 0]) / 255
    prompt = geometry.map_to_prompt(grey, 32, padded=False)
    torch.testing.assert_close(prompt[0, 0], resized[0], rtol=1e-5, atol=1e-5)


def test_stretched_masks_cover_the_image():
    masks = torch.tensor([[[1.0, -1.0], [-1.0, -1.0]]])
    found = geometry.stretch_masks(masks, (40, 20))
    assert torch.equal(found, F.interpolate(masks[None], (40, 20), mode="bilinear", align_corners=False)[0])
    assert (found > 0)[0].nonzero().amax(dim=0).tolist() < [20, 10]


def test_a_stretched_view_takes_rgb_bytes_alone():
    view = geometry.StretchedView(side=32, grid=2, mean=geometry.SAM_MEAN, std=geometry.SAM_STD)
    with pytest.raises(ValueError, match="convert it to RGB"):
        view.pixels(np.zeros((4, 4), np.uint8))
