"""Token-Mask Cycle Consistency against a short NumPy version, its limits and its options."""

import numpy as np
import pytest
import torch

from anchorseg.method import cycle
from tests.anchorseg.test_losses import plain_bce, plain_dice
from utils import geometry

FRAME = geometry.padded_frame((40, 50), 128, 16)


def make_masks(height: int = 40, width: int = 50) -> torch.Tensor:
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, 5:20, 8:30] = True
    masks[1, 30:38, 40:49] = True
    return masks


def plain_gaussian(mask: np.ndarray, kernel: int, sigma: float) -> np.ndarray:
    kernel = max(min(kernel, *(side if side % 2 else side - 1 for side in mask.shape)), 3)
    offsets = np.arange(kernel) - kernel // 2
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * sigma**2))
    padded = np.pad(mask.astype(np.float64), kernel // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel))
    blurred = (windows * weights).sum(axis=(2, 3))
    return blurred / blurred.max()


@pytest.mark.parametrize(("size", "kernel"), [((40, 50), 31), ((24, 24), 23), ((9, 30), 31), ((4, 7), 31), ((2, 5), 5)])
def test_gaussian_target_is_the_plain_one(size, kernel):
    mask = np.random.default_rng(1).random(size) > 0.8
    mask[1, 1] = True
    target = cycle.gaussian_target(torch.from_numpy(mask)[None], kernel, 7.0)[0].numpy()
    assert np.abs(target - plain_gaussian(mask, kernel, 7.0)).max() < 1e-6


def test_gaussian_target_of_special_masks():
    assert not cycle.gaussian_target(torch.zeros(1, 40, 40)).any()
    assert (cycle.gaussian_target(torch.ones(1, 40, 40)) == 1).all()
    line = torch.tensor([[[0.0, 1.0, 0.0]]])
    assert torch.equal(cycle.gaussian_target(line), line)
    assert cycle.gaussian_target(torch.zeros(0, 40, 40)).shape == (0, 40, 40)


@pytest.mark.parametrize("kernel", [1, 30])
def test_even_kernels_are_refused(kernel):
    with pytest.raises(ValueError, match="odd number"):
        cycle.gaussian_target(torch.ones(1, 40, 40), kernel)


def test_positive_weight():
    targets = torch.tensor([[[1.0, 0.5]], [[0.5, 0.0]]])
    assert cycle.positive_weight(targets).item() == pytest.approx(1)
    assert cycle.positive_weight(torch.zeros(2, 40, 40)).item() == pytest.approx(3.2e9)
    assert cycle.positive_weight(targets, torch.tensor([[True, False]])).item() == pytest.approx(3, rel=1e-5)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (6.0, -3.0)])
def test_token_to_mask_is_the_plain_one(scale, shift):
    masks, maps = make_masks(), torch.rand(2, 40, 50)
    targets = np.stack([plain_gaussian(mask, 31, 7.0) for mask in masks.numpy()])
    weight = (1 - targets).sum() / (targets.sum() + 1e-6)
    loss = cycle.token_to_mask(maps, masks, scale=scale, shift=shift)
    logits = (maps * scale + shift).numpy()
    assert loss.bce.tolist() == pytest.approx(plain_bce(logits, targets, weight), rel=1e-5)
    assert loss.dice.tolist() == pytest.approx(plain_dice(logits, targets, 1e-6, weight), rel=1e-5)


@pytest.mark.parametrize(("side", "grid", "sampling"), [(336, 24, "nearest"), (128, 16, "nearest"), (128, 16, "area")])
def test_mask_to_token_is_the_plain_one(side, grid, sampling):
    masks, responses, frame = make_masks(), torch.rand(2, grid * grid), geometry.padded_frame((40, 50), side, grid)
    coarse = geometry.masks_to_tokens(masks, frame, mode=sampling).numpy()
    targets = np.stack([plain_gaussian(mask, 23, 7.0) for mask in coarse])
    loss = cycle.mask_to_token(responses, masks, frame, target_sampling=sampling)
    logits = responses.unflatten(1, (grid, grid)).numpy()
    assert loss.bce.tolist() == pytest.approx(plain_bce(logits, targets), rel=1e-5)
    assert loss.dice.tolist() == pytest.approx(plain_dice(logits, targets, 1e-3), rel=1e-5)


def test_learned_scale_and_shift_get_gradients():
    scale, shift = torch.tensor(2.0, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    responses = torch.rand(2, 256, requires_grad=True)
    maps = geometry.tokens_to_map(responses, FRAME, (40, 50))
    forth = cycle.token_to_mask(maps, make_masks(), scale=scale, shift=shift)
    back = cycle.mask_to_token(responses, make_masks(), FRAME, scale=scale, shift=shift)
    (forth.bce + forth.dice + back.bce + back.dice).mean().backward()
    for leaf in (scale, shift, responses):
        assert leaf.grad is not None and leaf.grad.isfinite().all() and leaf.grad.any()


def test_scale_and_shift_let_the_loss_fall():
    masks = make_masks()
    best = cycle.gaussian_target(masks)
    plain, scaled = cycle.token_to_mask(best, masks), cycle.token_to_mask(best, masks, scale=10.0, shift=-5.0)
    assert (scaled.dice < plain.dice - 0.1).all()
    best = cycle.gaussian_target(geometry.masks_to_tokens(masks, FRAME), 23).flatten(1)
    plain, scaled = (cycle.mask_to_token(best, masks, FRAME, scale=a, shift=b) for a, b in ((1.0, 0.0), (10.0, -5.0)))
    assert (scaled.bce < plain.bce - 0.1).all() and (scaled.dice < plain.dice - 0.1).all()


def test_ignored_pixels_have_no_say():
    masks, maps = make_masks(), torch.rand(2, 40, 50)
    ignore = torch.zeros(40, 50, dtype=torch.bool)
    ignore[:, 20:] = True
    changed = torch.where(ignore, 1 - maps, maps)
    before, after = (cycle.token_to_mask(each, masks, ignore=ignore) for each in (maps, changed))
    assert torch.equal(before.bce, after.bce) and torch.equal(before.dice, after.dice)
    responses = torch.rand(2, 256, requires_grad=True)
    loss = cycle.mask_to_token(responses, masks, FRAME, ignore=ignore)
    (loss.bce + loss.dice).sum().backward()
    used = responses.grad.unflatten(1, (16, 16)) != 0
    assert used[:, :, :6].all() and not used[:, :12, 7:].any()


def test_an_image_without_targets_gives_no_values():
    forth = cycle.token_to_mask(torch.zeros(0, 40, 50), torch.zeros(0, 40, 50, dtype=torch.bool))
    back = cycle.mask_to_token(torch.zeros(0, 256), torch.zeros(0, 40, 50, dtype=torch.bool), FRAME)
    assert all(value.shape == (0,) for value in (forth.bce, forth.dice, back.bce, back.dice))
