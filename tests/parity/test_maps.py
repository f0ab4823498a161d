"""What forward_train.npz derives from its spatial responses and mask logits, without any network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anchorseg import cycle, losses
from tests.parity.reference import Reference
from utils import geometry

IMAGES = [0, 1]


def tensor(reference: Reference, name: str) -> torch.Tensor:
    return torch.from_numpy(np.array(reference.load(f"forward_train/{name}")))


def whole(reference: Reference, name: str) -> torch.Tensor:
    try:
        return tensor(reference, name)
    except KeyError:
        pytest.skip("the digest holds a sample of this input")


def make_map(reference: Reference, image: int) -> torch.Tensor:
    content = tuple(tensor(reference, "in.clip_resize_list")[image].tolist())
    original = tuple(tensor(reference, "in.sam_mask_shape_list")[image, 1].tolist())
    return geometry.tokens_to_map(tensor(reference, f"out.similarity_minmax.{image}"), 336, content, original)


@pytest.mark.parametrize("image", IMAGES)
def test_map_and_prompt(reference: Reference, image: int) -> None:
    maps = make_map(reference, image)
    reference.assert_matches(f"forward_train/out.token_to_mask_map.{image}", maps)
    reference.assert_matches(f"forward_train/mid.similarity_map_256.{image}", geometry.map_to_prompt(maps))


@pytest.mark.parametrize("image", IMAGES)
def test_mask_to_token_target(reference: Reference, image: int) -> None:
    coarse = geometry.masks_to_tokens(tensor(reference, f"in.masks_list.{image}"), 336, 24)
    target = cycle.gaussian_target(coarse, cycle.MASK_TO_TOKEN_KERNEL)
    reference.assert_matches(f"forward_train/out.mask_to_token_target.{image}", target)


def _errors(reference: Reference, image: int, first: int, loss: list[torch.Tensor]) -> list[float]:
    expected = tensor(reference, f"out.terms.{image}").tolist()[first:]
    return [abs(found.mean().item() - wanted) / wanted for found, wanted in zip(loss, expected, strict=False)]


@pytest.mark.parametrize("image", IMAGES)
def test_cycle_terms(reference: Reference, image: int) -> None:
    masks = tensor(reference, f"in.masks_list.{image}").bool()
    forth = cycle.token_to_mask(make_map(reference, image), masks)
    back = cycle.mask_to_token(tensor(reference, f"out.similarity_minmax.{image}"), masks, 336)
    assert max(_errors(reference, image, 2, [forth.bce, forth.dice, back.bce, back.dice])) < 1e-5


@pytest.mark.parametrize("image", IMAGES)
def test_mask_terms(reference: Reference, image: int) -> None:
    logits, masks = whole(reference, f"out.pred_masks.{image}"), tensor(reference, f"in.masks_list.{image}")
    terms = [losses.binary_cross_entropy(logits, masks), losses.dice(logits, masks)]
    assert max(_errors(reference, image, 0, terms)) < 1e-5


@pytest.mark.parametrize("image", IMAGES)
def test_upscaled_masks(reference: Reference, image: int) -> None:
    content, original = (tuple(size) for size in tensor(reference, "in.sam_mask_shape_list")[image].tolist())
    low_res = whole(reference, f"mid.low_res_masks.{image}")[:, 0]
    masks = geometry.upscale_masks(low_res, 1024, content, original)
    reference.assert_matches(f"forward_train/out.pred_masks.{image}", masks)
