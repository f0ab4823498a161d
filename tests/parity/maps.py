"""similarity_chain.npz: from raw similarities to maps and back from masks to the token grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from anchorseg.method import cycle
from anchorseg.method.spatial_prior import min_max
from tests.parity.context import Context
from tests.parity.reference import Fixture
from utils import geometry

SIDE, GRID = 336, 24
CONSTANT = "const.map256_isnan"


def _numbers(fixture: Fixture, beginning: str, end: str) -> list[str]:
    return [name.split(".")[1] for name in fixture.names if name.startswith(beginning) and name.endswith(end)]


def check_maps(fixture: Fixture, context: Context) -> None:
    """Every array of similarity_chain.npz."""
    for which in _numbers(fixture, "sim.", ".in"):
        _check_map(fixture, f"sim.{which}")
    for which in _numbers(fixture, "gt.", ".mask"):
        masks = fixture.tensor(f"gt.{which}.mask")
        coarse, fine = (
            geometry.masks_to_tokens(masks, geometry.padded_frame(masks.shape[1:], SIDE, grid)) for grid in (GRID, SIDE)
        )
        fixture.check(f"gt.{which}.apply336", fine[:, None])
        fixture.check(f"gt.{which}.nearest24", coarse)
        fixture.check(f"gt.{which}.target24", cycle.gaussian_target(coarse, cycle.MASK_TO_TOKEN_KERNEL))
    if CONSTANT in fixture:
        zeros = bool((min_max(torch.ones(1, GRID * GRID)) == 0).all())
        fixture.add(CONSTANT, zeros, note="published: 0 / 0; here a constant similarity gives zeros, by design")


def _check_map(fixture: Fixture, case: str) -> None:
    scores = fixture.tensor(f"{case}.in").requires_grad_()
    height, width = fixture.input(f"{case}.shape").tolist()
    responses = min_max(scores)
    maps = geometry.tokens_to_map(responses, geometry.padded_frame((height, width), SIDE, GRID), (height, width))
    prompt = geometry.map_to_prompt(maps)
    fixture.check(f"{case}.minmax", responses)
    fixture.check(f"{case}.map256", prompt)
    fixture.check(f"{case}.token_to_mask", maps, optional=height * width > 1_000_000)
    fixture.check(f"{case}.spatial_masking_64", F.interpolate(prompt, (64, 64)), note="never used")
    weight = fixture.tensor(f"{case}.map256_weight_for_grad")
    loss = (prompt * weight).sum() + 1e-3 * maps.square().sum() + responses.square().sum()
    loss.backward()
    fixture.check(f"{case}.grad", scores.grad)
