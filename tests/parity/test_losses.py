"""Every array of losses.npz."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anchorseg import cycle, losses
from tests.parity.reference import Reference

HEATMAPS = ["480x640", "64x64", "31x31", "30x40", "24x24", "10x50", "7x5", "4x4", "3x3", "2x2", "2x9", "1x1", "1x5"]
PUBLISHED = {
    "dice_loss": losses.dice,
    "sigmoid_ce_loss": losses.binary_cross_entropy,
}


def tensor(reference: Reference, name: str) -> torch.Tensor:
    return torch.from_numpy(np.array(reference.load(f"losses/{name}")))


@pytest.mark.parametrize("case", ["a", "b", "c"])
@pytest.mark.parametrize("published", sorted(PUBLISHED))
def test_mask_losses_and_their_gradients(reference: Reference, published: str, case: str) -> None:
    logits = tensor(reference, f"bce_dice.{case}.logits").requires_grad_()
    targets = tensor(reference, f"bce_dice.{case}.targets")
    values = PUBLISHED[published](logits, targets)
    assert values.shape == (int(reference.load(f"losses/bce_dice.{case}.num_masks")),)
    loss = values.mean()
    loss.backward()
    reference.assert_matches(f"losses/{published}.{case}.out", loss)
    reference.assert_matches(f"losses/{published}.{case}.grad", logits.grad)


@pytest.mark.parametrize("size", HEATMAPS)
def test_gaussian_targets(reference: Reference, size: str) -> None:
    masks = tensor(reference, f"heatmap.{size}.mask")
    reference.assert_matches(f"losses/heatmap.{size}.out", cycle.gaussian_target(masks, 31, 7.0))


def _weighted(name: str, maps: torch.Tensor, heat: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if name == "compute_gaussian_bce_loss":
        values = losses.binary_cross_entropy(maps, heat, positive_weight=weight)
    else:
        values = losses.dice(maps, heat, cycle.TOKEN_TO_MASK_SMOOTH, positive_weight=weight)
    return values.sum() / max(len(values), 1)


@pytest.mark.parametrize("case", ["a", "b", "c", "empty", "zero", "tiny"])
@pytest.mark.parametrize("name", ["compute_gaussian_bce_loss", "compute_gaussian_dice_loss"])
def test_token_to_mask_losses(reference: Reference, name: str, case: str) -> None:
    maps = tensor(reference, f"gauss.{case}.map").requires_grad_()
    heat = tensor(reference, f"gauss.{case}.heat")
    reference.assert_matches(
        f"losses/gauss.{case}.heat", cycle.gaussian_target(tensor(reference, f"gauss.{case}.mask"))
    )
    weight = cycle.positive_weight(heat)
    reference.assert_matches(f"losses/gauss.{case}.auto_pos_weight", weight)
    loss = _weighted(name, maps, heat, weight)
    reference.assert_matches(f"losses/{name}.{case}.out", loss)
    if case == "zero":
        return
    loss.backward()
    reference.assert_matches(f"losses/{name}.{case}.grad", maps.grad)
    explicit = _weighted(name, maps, heat, torch.tensor(2.5))
    reference.assert_matches(f"losses/{name}.{case}.out_pos_weight_2.5", explicit)


@pytest.mark.parametrize("case", ["a", "b", "c", "tiny"])
def test_token_to_mask_as_a_whole(reference: Reference, case: str) -> None:
    maps, masks = tensor(reference, f"gauss.{case}.map"), tensor(reference, f"gauss.{case}.mask").bool()
    loss = cycle.token_to_mask(maps, masks)
    reference.assert_matches(f"losses/compute_gaussian_bce_loss.{case}.out", loss.bce.mean())
    reference.assert_matches(f"losses/compute_gaussian_dice_loss.{case}.out", loss.dice.mean())
