"""BCE and Dice: known answers, a plain NumPy version, the ignore map, gradients."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from anchorseg.method import losses

CERTAIN = 50.0


def bce_of(*args, **kwargs):
    return losses.mask_loss(*args, **kwargs).bce


def dice_of(*args, **kwargs):
    return losses.mask_loss(*args, **kwargs).dice


def make_case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 7, 9, generator=generator), torch.rand(3, 7, 9, generator=generator)


def plain_bce(logits, targets, weight=1.0, keep=None):
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    pixels = -(weight * targets * np.log(p) + (1 - targets) * np.log(1 - p))
    return [pixels[i][keep].mean() if keep is not None else pixels[i].mean() for i in range(len(pixels))]


def plain_dice(logits, targets, smooth, weight=1.0, keep=None):
    keep = np.ones(logits.shape[1:], bool) if keep is None else keep
    values = []
    for x, t in zip(logits.astype(np.float64), targets.astype(np.float64), strict=True):
        p, t = 1 / (1 + np.exp(-x[keep])), weight * t[keep]
        values.append(1 - (2 * (p * t).sum() + smooth) / (p.sum() + t.sum() + smooth))
    return values


def test_a_perfect_mask_costs_nothing():
    targets = torch.zeros(1, 4, 4, dtype=torch.bool)
    targets[0, :2] = True
    logits = torch.where(targets, CERTAIN, -CERTAIN)
    assert bce_of(logits, targets).item() == pytest.approx(0, abs=1e-6)
    assert dice_of(logits, targets).item() == pytest.approx(0, abs=1e-6)


def test_known_answers():
    targets = torch.zeros(1, 4, 4)
    targets[0, :2] = 1
    assert bce_of(torch.zeros(1, 4, 4), targets).item() == pytest.approx(math.log(2))
    disjoint = torch.where(targets > 0, -CERTAIN, CERTAIN)
    assert dice_of(disjoint, targets).item() == pytest.approx(1, abs=1e-4)
    everything = torch.full((1, 4, 4), CERTAIN)
    assert dice_of(everything, targets, smooth=0.0).item() == pytest.approx(1 - 2 / 3)
    quarter = torch.full((1, 4, 4), -CERTAIN)
    quarter[0, 0] = CERTAIN
    assert dice_of(quarter, targets, smooth=0.0).item() == pytest.approx(1 / 3)


def test_nothing_wanted_and_nothing_given_costs_nothing():
    assert dice_of(torch.full((1, 5, 5), -CERTAIN), torch.zeros(1, 5, 5)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("weight", [None, 2.5])
@pytest.mark.parametrize("is_masked", [False, True])
def test_equal_to_the_plain_version(weight, is_masked):
    logits, targets = make_case()
    ignore = torch.rand(7, 9, generator=torch.Generator().manual_seed(1)) > 0.7 if is_masked else None
    keep = None if ignore is None else ~ignore.numpy()
    options = {"positive_weight": None if weight is None else torch.tensor(weight), "ignore": ignore}
    bce = bce_of(logits, targets, **options)
    dice = dice_of(logits, targets, smooth=1e-6, **options)
    arrays = logits.numpy(), targets.numpy()
    assert bce.tolist() == pytest.approx(plain_bce(*arrays, weight or 1, keep), rel=1e-5)
    assert dice.tolist() == pytest.approx(plain_dice(*arrays, 1e-6, weight or 1, keep), rel=1e-5)


@pytest.mark.parametrize("loss", [bce_of, dice_of])
def test_ignored_pixels_have_no_say(loss):
    logits, targets = make_case()
    logits.requires_grad_()
    ignore = torch.zeros(3, 7, 9, dtype=torch.bool)
    ignore[:, 2:5] = True
    value = loss(logits, targets, ignore=ignore)
    changed = torch.where(ignore, 1 - targets, targets)
    assert torch.equal(value, loss(logits, changed, ignore=ignore))
    value.sum().backward()
    assert not logits.grad[ignore].any() and logits.grad[~ignore].all()


@pytest.mark.parametrize("weight", [None, 2.5])
@pytest.mark.parametrize("is_hard", [False, True])
@pytest.mark.parametrize("is_masked", [False, True])
def test_gradients_are_those_of_plain_operations(weight, is_hard, is_masked):
    logits, targets = make_case()
    weight = None if weight is None else torch.tensor(weight)
    ignore = torch.rand(3, 7, 9, generator=torch.Generator().manual_seed(1)) > 0.7 if is_masked else None
    targets = targets > 0.5 if is_hard else targets
    logits = (4 * logits).requires_grad_()

    def plain(x, t):
        keep = torch.ones_like(t) if ignore is None else (~ignore).float()
        pixels = F.binary_cross_entropy_with_logits(x, t, pos_weight=weight, reduction="none") * keep
        p, t = x.sigmoid() * keep, t * keep * (1 if weight is None else weight)
        dice = 1 - (2 * (p * t).sum((1, 2)) + 1e-3) / (p.sum((1, 2)) + t.sum((1, 2)) + 1e-3)
        return pixels.sum((1, 2)) / keep.sum((1, 2)) + 3 * dice

    found = losses.mask_loss(logits, targets, positive_weight=weight, ignore=ignore)
    (ours,) = torch.autograd.grad((found.bce + 3 * found.dice).sum(), logits)
    (expected,) = torch.autograd.grad(plain(logits, targets.float()).sum(), logits)
    torch.testing.assert_close(found.bce + 3 * found.dice, plain(logits, targets.float()), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)


def test_only_the_logits_are_kept_for_backward():
    logits, targets = torch.randn(2, 40, 50, requires_grad=True), torch.rand(2, 40, 50)
    kept: dict[int, int] = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        losses.mask_loss(logits, targets, positive_weight=torch.tensor(2.0))
    maps = [size for size in kept.values() if size >= 2 * 40 * 50]
    assert sorted(maps) == [2 * 40 * 50 * 4] * 2, "logits and targets, which exist anyway"


@pytest.mark.parametrize("loss", [bce_of, dice_of])
def test_a_fully_ignored_image_is_finite(loss):
    logits, targets = make_case()
    assert loss(logits, targets, ignore=torch.ones(7, 9, dtype=torch.bool)).tolist() == pytest.approx([0, 0, 0])


@pytest.mark.parametrize("loss", [bce_of, dice_of])
def test_gradients(loss):
    logits, targets = make_case()
    logits = logits[:1, :3, :3].double().requires_grad_()
    # the losses compute in float32, so a coarse step and tolerance
    assert torch.autograd.gradcheck(
        lambda x: loss(x, targets[:1, :3, :3]), logits, eps=1e-2, atol=1e-3, rtol=1e-2, nondet_tol=1e-3
    )


@pytest.mark.parametrize("loss", [bce_of, dice_of])
def test_targets_do_not_know_each_other(loss):
    logits, targets = make_case()
    order = [2, 0, 1]
    assert torch.equal(loss(logits, targets)[order], loss(logits[order], targets[order]))
    assert loss(logits[:0], targets[:0]).shape == (0,)
    assert loss(logits.bfloat16(), targets > 0.5).dtype == torch.float32
    with pytest.raises(AssertionError):
        loss(logits, targets[:1])
