"""losses.npz: mask losses, Gaussian targets and weighted losses, with their gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from anchorseg.method import cycle, losses
from tests.parity.context import Context
from tests.parity.reference import Fixture


def _bce(maps: Tensor, heat: Tensor, weight: Tensor) -> Tensor:
    return losses.mask_loss(maps, heat, positive_weight=weight).bce


def _dice(maps: Tensor, heat: Tensor, weight: Tensor) -> Tensor:
    return losses.mask_loss(maps, heat, smooth=cycle.TOKEN_TO_MASK_SMOOTH, positive_weight=weight).dice


MASK_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dice_loss": lambda logits, targets: losses.mask_loss(logits, targets).dice,
    "sigmoid_ce_loss": lambda logits, targets: losses.mask_loss(logits, targets).bce,
}
WEIGHTED_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "compute_gaussian_bce_loss": _bce,
    "compute_gaussian_dice_loss": _dice,
}


def _cases(fixture: Fixture, beginning: str, end: str) -> list[str]:
    named = (name for name in fixture.names if name.startswith(beginning) and name.endswith(end))
    return [name.removeprefix(beginning).removesuffix(end) for name in named]


def check_losses(fixture: Fixture, context: Context) -> None:
    """Every array of losses.npz."""
    for case in _cases(fixture, "bce_dice.", ".logits"):
        _check_mask_losses(fixture, case)
    for case in _cases(fixture, "heatmap.", ".mask"):
        fixture.check(f"heatmap.{case}.out", cycle.gaussian_target(fixture.tensor(f"heatmap.{case}.mask")))
    for case in _cases(fixture, "gauss.", ".map"):
        _check_weighted_losses(fixture, case)


def _check_mask_losses(fixture: Fixture, case: str) -> None:
    targets = fixture.tensor(f"bce_dice.{case}.targets")
    fixture.check(f"bce_dice.{case}.num_masks", len(targets))
    for name, loss_of in MASK_LOSSES.items():
        logits = fixture.tensor(f"bce_dice.{case}.logits").requires_grad_()
        loss = loss_of(logits, targets).mean()
        loss.backward()
        fixture.check(f"{name}.{case}.out", loss)
        fixture.check(f"{name}.{case}.grad", logits.grad)


def _check_weighted_losses(fixture: Fixture, case: str) -> None:
    heat = cycle.gaussian_target(fixture.tensor(f"gauss.{case}.mask"))
    fixture.check(f"gauss.{case}.heat", heat)
    weight = cycle.positive_weight(heat)
    fixture.check(f"gauss.{case}.auto_pos_weight", weight)
    for name, loss_of in WEIGHTED_LOSSES.items():
        maps = fixture.tensor(f"gauss.{case}.map").requires_grad_()
        is_empty = len(maps) == 0
        loss = loss_of(maps, heat, weight).sum() / max(len(maps), 1)
        loss.backward()
        explicit = loss_of(maps, heat, torch.tensor(2.5)).sum() / max(len(maps), 1)
        fixture.check(f"{name}.{case}.out", loss)
        fixture.check(f"{name}.{case}.grad", maps.grad, optional=is_empty)
        fixture.check(f"{name}.{case}.out_pos_weight_2.5", explicit, optional=is_empty)
