"""GSVA: what a rejected slot counts in the loss, worked out by hand; and latents that are written for nothing."""

from __future__ import annotations

import math

import pytest
import torch

from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.objective import Objective
from anchorseg.method.options import GsvaOptions, LisaOptions, LossWeights
from anchorseg.method.tokens import TokenRegistry
from anchorseg.weights.presets import preset_config
from dataset.sample import AnswerPart, Conversation, RejectSlot, Sample, TargetSlot, Turn
from tests.conftest import make_batch, make_registry, make_sample
from utils.seeding import seed_torch

SIZE = (60, 80)
ZERO_DICE = 1 - 1e-3 / (0.5 * SIZE[0] * SIZE[1] + 1e-3)


def make_model(head: str, options: LisaOptions) -> tuple[AnchorSegModel, TokenRegistry]:
    registry = make_registry(options.num_latents)
    seed_torch(0)
    return AnchorSegModel(preset_config("tiny", options, registry, head=head)), registry


def answered(*slots: AnswerPart) -> Sample:
    sample = make_sample(0, SIZE)
    turn = Turn("Can you segment a, b and c in this image?", tuple(part for slot in slots for part in (slot, ", ")))
    return Sample(record="listed", image=sample.image, conversations=(Conversation((turn,)),), masks=sample.masks)


def mask_terms(rejected_masks: str, sample: Sample) -> tuple[dict[str, torch.Tensor], AnchorSegModel]:
    model, registry = make_model("gsva", GsvaOptions(rejected_masks=rejected_masks))
    batch = make_batch(model, registry, [sample])
    losses = Objective(LossWeights(), model.head)(model(batch), batch)
    losses.total.backward()
    return losses.terms, model


def test_one_rejected_slot_of_three():
    sample = answered(TargetSlot(0), RejectSlot(), TargetSlot(1))
    left_out, counted = (mask_terms(way, sample) for way in ("left_out", "counted"))
    for name, of_zeros in (("mask_bce", math.log(2)), ("mask_dice", ZERO_DICE)):
        assert float(counted[0][name]) == pytest.approx((2 * float(left_out[0][name]) + of_zeros) / 3, rel=1e-5)
    assert counted[0]["ce"] == left_out[0]["ce"]
    for (name, one), other in zip(counted[1].named_parameters(), left_out[1].parameters(), strict=True):
        if "mask_decoder.output_upscaling" in name and one.grad is not None:
            assert torch.allclose(one.grad, other.grad * 2 / 3, rtol=1e-4, atol=1e-7), "zero logits have no gradient"


def test_nothing_but_rejections():
    terms, model = mask_terms("counted", answered(RejectSlot(), RejectSlot()))
    assert float(terms["mask_bce"]) == pytest.approx(math.log(2), rel=1e-5)
    assert float(terms["mask_dice"]) == pytest.approx(ZERO_DICE, rel=1e-5)
    gradient = model.head.modules["query_bank"].anchor_projection[0].weight.grad
    assert gradient is not None and not gradient.any(), "every rank has the same gradients to reduce"
    terms, _ = mask_terms("left_out", answered(RejectSlot()))
    assert float(terms["mask_bce"]) == 0 and "mask_dice" not in terms


def test_latents_that_nothing_uses():
    with pytest.raises(ValueError, match="num_latents is 7, but this head uses no latent tokens"):
        LisaOptions(num_latents=7)
    model, registry = make_model("lisa", LisaOptions(num_latents=7, unused_latents=True))
    batch = make_batch(model, registry, [make_sample(0)])
    assert batch.conversations.targets.columns.shape == (3, 8)
    supervised = set(model(batch).labels.tolist())
    assert set(model.bank_ids) <= supervised, "they are written and supervised"
    names = [name for name, _ in model.named_parameters() if "query_bank" in name]
    assert not any("contextual" in name for name in names)
