"""Named options against the published behaviour: valid patches, void pixels, conversations that are too long."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch

from anchorseg.inference.collate import make_collator
from anchorseg.method import cycle
from anchorseg.method.cycle import gaussian_target
from anchorseg.method.losses import mask_loss
from anchorseg.method.objective import Objective
from anchorseg.method.options import LossWeights, Method
from anchorseg.method.spatial_prior import min_max
from anchorseg.training.build import build_for_training
from anchorseg.training.settings import TrainSettings
from anchorseg.weights.folder import load_model, save_model
from dataset.families.reason_seg import ReasonSegTraining
from dataset.mixture import Mixture
from dataset.sample import Conversation, Turn
from tests.conftest import make_batch, make_model, make_sample
from utils import geometry
from utils.errors import CheckpointError


def test_only_valid_patches_set_the_range_of_the_prior():
    scores = torch.tensor([[3.0, 5.0, 100.0, -100.0], [1.0, 1.0, 7.0, 2.0]])
    valid = torch.tensor([[True, True, False, False], [True, True, False, True]])
    assert min_max(scores, valid).tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]
    assert min_max(scores)[0].tolist() == pytest.approx([0.515, 0.525, 1, 0])
    first = torch.tensor([True, False, False, False])
    assert min_max(scores[:1], first[None]).tolist() == [[0, 0, 0, 0]]  # constant


def terms(method, sample):
    model, registry = make_model(method)
    batch = make_batch(model, registry, [sample])
    with torch.no_grad():
        output = model(batch)
    losses = Objective(LossWeights(), model.head)(output, batch)
    return {name: float(value) for name, value in losses.terms.items()}, output, batch


def test_the_valid_range_reaches_prior_and_loss():
    published, before, batch = terms(Method(), make_sample(0))
    corrected, after, _ = terms(Method(prior_range="valid"), make_sample(0))
    valid = batch.images.patch_valid[[0] * sum(after.segmentation.counts)]
    responses = after.segmentation.prior.responses
    assert not valid.all() and (responses[~valid] == 0).all()
    assert responses[valid].view(len(valid), -1).amax(dim=1).tolist() == [1.0] * len(valid)
    assert (before.segmentation.prior.responses[~valid] != 0).any()
    assert all(published[name] != corrected[name] for name in ("t2m_bce", "m2t_bce", "m2t_dice"))


def test_void_pixels_have_no_say_where_they_are_left_out():
    plain = make_sample(0)
    void = np.zeros_like(plain.masks)
    void[:, :20] = True
    inside = plain.masks.copy()
    inside[:, 5:15, 50:70] ^= True
    samples = [dataclasses.replace(plain, ignore=void, masks=masks) for masks in (plain.masks, inside)]
    ignoring = [terms(Method(void_pixels="ignore"), sample)[0] for sample in samples]
    published = [terms(Method(), sample)[0] for sample in samples]
    for name in ("mask_bce", "mask_dice"):
        assert ignoring[0][name] == pytest.approx(ignoring[1][name], rel=1e-6)
        assert published[0][name] != pytest.approx(published[1][name], rel=1e-4)
    assert all(ignoring[0][name] != published[0][name] for name in ("t2m_bce", "t2m_dice", "m2t_bce"))


def test_training_samples_carry_their_void_pixels(tmp_path):
    folder = tmp_path / "reason_seg" / "ReasonSeg" / "train"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "a.jpg"), np.zeros((40, 60, 3), np.uint8))
    square = lambda x: [[x, 5], [x + 10, 5], [x + 10, 15], [x, 15]]  # noqa: E731
    shapes = [{"label": "target", "points": square(5)}, {"label": "ignore", "points": square(30)}]
    (folder / "a.json").write_text(
        json.dumps({"text": ["it"], "is_sentence": False, "shapes": shapes}), encoding="utf-8"
    )
    sample = ReasonSegTraining(tmp_path, ("train",)).training_sample(0, np.random.default_rng(0))
    assert sample.ignore.shape == sample.masks.shape == (1, 40, 60)
    assert sample.ignore.sum() == sample.masks.sum() == 121 and not (sample.ignore & sample.masks).any()


class Talkative:
    """Every second record has a conversation that no model can read."""

    def __len__(self):
        return 10

    def training_sample(self, index, rng):
        words = "very " * (400 if index % 2 else 1)
        conversation = Conversation((Turn(f"What is the {words}red thing?", ("It.",)),))
        return dataclasses.replace(make_sample(index), conversations=(conversation,))


def test_a_conversation_too_long_is_counted_as_a_bad_record():
    model, registry = make_model()
    collator = make_collator(model.config, registry, max_length=200)
    mixture = Mixture([("talk", Talkative())], [1.0], seed=0, encode=collator.encode)
    draws = [mixture[index] for index in range(8)]
    skipped = [reason for draw in draws for reason in draw.skipped]
    assert skipped and all("at most 200 are allowed" in reason for reason in skipped)
    collator.collate([draw.encoded for draw in draws])


@pytest.mark.parametrize("name", Method.INFERENCE)
def test_a_saved_model_is_not_trained_on_under_another_method(tmp_path, name):
    other = {"num_latents": 3, "clip_statistics": "sam", "padding_attention": "plain", "prior_range": "valid"}
    other |= {"sam_position_precision": "weights", "similarity_precision": "float32"}
    other |= {"num_anchors": 2, "anchor_priors": "fused", "anchor_merge": "nms"}
    method = {**dataclasses.asdict(Method()), "token_to_mask": False, "mask_to_token": False, "inject_prior": False}
    model, registry = make_model(Method(**method))
    save_model(model, registry, tmp_path / "model")
    settings = TrainSettings(size="tiny", version=str(tmp_path / "model"), precision="fp32", lora_r=0, **method)
    assert build_for_training(settings)[0].method == Method(**method)
    changed = dataclasses.replace(settings, **{name: other.get(name, not method[name])})
    with pytest.raises(CheckpointError, match=rf"was trained with {name} .*; pass --"):
        build_for_training(changed)
    later = dataclasses.replace(settings, void_pixels="ignore", cycle_scale=10.0)
    assert build_for_training(later)[0].method.void_pixels == "ignore"


def test_similarity_in_float32_tells_more_patches_apart_than_in_bf16():
    maps = {}
    for precision in ("weights", "float32"):
        model, registry = make_model(Method(similarity_precision=precision))
        batch = make_batch(model, registry, [make_sample(0)]).to("cpu", torch.bfloat16)
        with torch.inference_mode():
            prior = model.to(torch.bfloat16).eval()(batch).segmentation.prior
        maps[precision] = prior.similarity
    assert maps["weights"].dtype == torch.bfloat16 and maps["float32"].dtype == torch.float32
    assert torch.equal(maps["float32"].bfloat16(), maps["weights"])
    assert all(len(fine.unique()) > len(coarse.unique()) for fine, coarse in zip(*reversed(maps.values()), strict=True))


def test_the_target_of_the_tokens_may_be_rounded_as_published():
    ours, *_ = terms(Method(), make_sample(0))
    published, output, batch = terms(Method(token_target_precision="bf16"), make_sample(0))
    changed = {name for name in ours if ours[name] != published[name]}
    assert changed and changed <= {"m2t_bce", "m2t_dice"}
    assert all(published[name] == pytest.approx(ours[name], rel=6.5e-3) for name in changed)
    masks = batch.conversations.masks[0]
    grid = (
        gaussian_target(geometry.masks_to_tokens(masks, batch.images.language_frames[0]), cycle.MASK_TO_TOKEN_KERNEL)
        .bfloat16()
        .float()
    )
    responses = output.segmentation.prior.responses[: len(masks)]
    loss = mask_loss(responses.unflatten(1, (8, 8)), grid)
    found = cycle.mask_to_token(responses, masks, batch.images.language_frames[0], target_precision="bf16")
    assert torch.equal(found.bce, loss.bce) and torch.equal(found.dice, loss.dice)


def test_positions_of_sam_are_encoded_in_the_type_that_is_chosen():
    model, _ = make_model(Method(sam_position_precision="weights"))
    ours, _ = make_model()
    assert torch.equal(model.sam.position_encoding(), ours.sam.position_encoding())  # float32 weights
    both = [chosen.sam.bfloat16().position_encoding() for chosen in (model, ours)]
    assert [encoding.dtype for encoding in both] == [torch.bfloat16, torch.float32]
    # As segment-anything's own module computes it in that type.
    own = model.sam.prompt_encoder.pe_layer
    size = model.sam.sizes.grid
    places = torch.ones(size, size, dtype=torch.bfloat16)
    rows, columns = ((places.cumsum(axis) - 0.5) / size for axis in (0, 1))
    assert torch.equal(both[0][0], own._pe_encoding(torch.stack([columns, rows], dim=-1)).permute(2, 0, 1))
    assert 0 < (both[0].float() - both[1]).abs().max() < 0.2


@pytest.mark.parametrize("trained", ["zero", "plain"])
def test_padding_patches_may_be_read_otherwise_than_trained(tmp_path, trained):
    save_model(*make_model(Method(padding_attention=trained)), tmp_path)
    other = {"zero": "plain", "plain": "zero"}[trained]
    methods = {chosen: load_model(tmp_path, padding_attention=chosen)[0].method for chosen in ("model", trained, other)}
    assert methods["model"] == methods[trained] == Method(padding_attention=trained)
    assert methods[other] == Method(padding_attention=other)
    states = []
    for chosen in (trained, other):
        model, registry = load_model(tmp_path, padding_attention=chosen)
        batch = make_batch(model, registry, [make_sample(0, size=(30, 80))])
        with torch.no_grad():
            states.append(model.prefill(batch.images, batch.conversations))
    assert not torch.allclose(*states)
