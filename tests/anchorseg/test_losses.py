"""BCE and Dice: known answers, a plain NumPy version, the ignore map, gradients."""

import math

import numpy as np
import pytest
import torch

from anchorseg import losses

CERTAIN = 50.0


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
    assert losses.binary_cross_entropy(logits, targets).item() == pytest.approx(0, abs=1e-6)
    assert losses.dice(logits, targets).item() == pytest.approx(0, abs=1e-6)


def test_known_answers():
    targets = torch.zeros(1, 4, 4)
    targets[0, :2] = 1
    assert losses.binary_cross_entropy(torch.zeros(1, 4, 4), targets).item() == pytest.approx(math.log(2))
    disjoint = torch.where(targets > 0, -CERTAIN, CERTAIN)
    assert losses.dice(disjoint, targets).item() == pytest.approx(1, abs=1e-4)
    everything = torch.full((1, 4, 4), CERTAIN)
    assert losses.dice(everything, targets, smooth=0.0).item() == pytest.approx(1 - 2 / 3)
    quarter = torch.full((1, 4, 4), -CERTAIN)
    quarter[0, 0] = CERTAIN
    assert losses.dice(quarter, targets, smooth=0.0).item() == pytest.approx(1 / 3)


def test_nothing_wanted_and_nothing_given_costs_nothing():
    assert losses.dice(torch.full((1, 5, 5), -CERTAIN), torch.zeros(1, 5, 5)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("weight", [None, 2.5])
@pytest.mark.parametrize("is_masked", [False, True])
def test_equal_to_the_plain_version(weight, is_masked):
    logits, targets = make_case()
    ignore = torch.rand(7, 9, generator=torch.Generator().manual_seed(1)) > 0.7 if is_masked else None
    keep = None if ignore is None else ~ignore.numpy()
    options = {"positive_weight": None if weight is None else torch.tensor(weight), "ignore": ignore}
    bce = losses.binary_cross_entropy(logits, targets, **options)
    dice = losses.dice(logits, targets, 1e-6, **options)
    arrays = logits.numpy(), targets.numpy()
    assert bce.tolist() == pytest.approx(plain_bce(*arrays, weight or 1, keep), rel=1e-5)
    assert dice.tolist() == pytest.approx(plain_dice(*arrays, 1e-6, weight or 1, keep), rel=1e-5)


@pytest.mark.parametrize("loss", [losses.binary_cross_entropy, losses.dice])
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


@pytest.mark.parametrize("loss", [losses.binary_cross_entropy, losses.dice])
def test_a_fully_ignored_image_is_finite(loss):
    logits, targets = make_case()
    assert loss(logits, targets, ignore=torch.ones(7, 9, dtype=torch.bool)).tolist() == pytest.approx([0, 0, 0])


@pytest.mark.parametrize("loss", [losses.binary_cross_entropy, losses.dice])
def test_gradients(loss):
    logits, targets = make_case()
    logits = logits[:1, :3, :3].double().requires_grad_()
    # the losses compute in float32, so a coarse step and tolerance
    assert torch.autograd.gradcheck(
        lambda x: loss(x, targets[:1, :3, :3]), logits, eps=1e-2, atol=1e-3, rtol=1e-2, nondet_tol=1e-3
    )


@pytest.mark.parametrize("loss", [losses.binary_cross_entropy, losses.dice])
def test_targets_do_not_know_each_other(loss):
    logits, targets = make_case()
    order = [2, 0, 1]
    assert torch.equal(loss(logits, targets)[order], loss(logits[order], targets[order]))
    assert loss(logits[:0], targets[:0]).shape == (0,)
    assert loss(logits.bfloat16(), targets > 0.5).dtype == torch.float32
    with pytest.raises(AssertionError):
        loss(logits, targets[:1])
