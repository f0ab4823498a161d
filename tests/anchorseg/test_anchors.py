"""Several anchors a target: against one decoding after the other, one anchor as before, and what trains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from anchorseg.inference.generation import generate
from anchorseg.inference.predictor import AnchorSegPredictor
from anchorseg.method.anchors import AnchorFusion, kept_by_nms, likeness, matched_loss
from anchorseg.method.losses import mask_loss
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.objective import Objective
from anchorseg.method.options import LossWeights, Method
from anchorseg.method.query_bank import gather_states
from anchorseg.method.tokens import TokenRegistry, TokenStrings
from anchorseg.training.trainable import set_trainable, trainable_groups
from anchorseg.weights.folder import load_model, save_model, tiny_tokenizer_model
from anchorseg.weights.presets import preset_config
from dataset.drawn.writer import write_scenes
from dataset.readers.folder import DataFolder
from dataset.registry import training_sources
from dataset.sample import Sample
from dataset.source import FamilyOptions
from tests.anchorseg.test_generation import relative_error, several_images
from tests.conftest import make_batch, make_sample
from tests.drawn.layouts import write_layouts
from utils.geometry import tokens_to_map
from utils.seeding import seed_torch

A = 3


def make_model(**options: object) -> tuple[AnchorSegModel, TokenRegistry]:
    method = Method(num_anchors=A, **options)  # type: ignore[arg-type]
    registry = TokenRegistry.create(tiny_tokenizer_model(), TokenStrings.for_bank(*method.token_counts()))
    seed_torch(0)
    return AnchorSegModel(preset_config("tiny", method, registry)), registry


def scenes() -> list[Sample]:
    return [make_sample(0), make_sample(1, (90, 50), 2)]


def test_a_bank_has_its_latents_then_its_anchors():
    model, registry = make_model()
    assert registry.strings.anchors == ("<SEG_1>", "<SEG_2>")
    assert len(model.bank_ids) == 7 + A and model.bank_ids == registry.bank_ids
    assert model.bank_ids[-1] == registry.segment_id
    batch = make_batch(model, registry, scenes())
    assert batch.conversations.targets.columns.shape == (5, 10)
    found = batch.conversations.input_ids[
        batch.conversations.targets.rows[:, None], batch.conversations.targets.columns
    ]
    assert found.tolist() == [list(model.bank_ids)] * 5


@torch.inference_mode()
def test_each_anchor_decodes_with_its_prior_and_the_union_is_taken():
    model, registry = make_model()
    batch = make_batch(model.eval(), registry, scenes())
    images, conversations = batch.images, batch.conversations
    hidden = model.prefill(images, conversations)
    context = model.image_context(images, conversations, hidden)
    found = model.segment(hidden, conversations.targets, context)
    before, last = gather_states(hidden, conversations.targets)
    bank = model.head.modules["query_bank"]
    positions = bank.positions
    for target in range(5):
        image = int(conversations.row_images[conversations.targets.rows[target]])
        shared = bank.contextual_projection(before[target, :7]) + positions[:7]
        masks, maps = [], []
        for number, state in enumerate([before[target, 7], before[target, 8], last[target]]):
            scores = context.image_states[image] @ state
            responses = (scores - scores.min()) / (scores.max() - scores.min() + 1e-6)
            maps.append(tokens_to_map(responses[None], images.language_frames[image], images.sizes[image]))
            queries = torch.cat([shared, (bank.anchor_projection(state) + positions[7 + number])[None]])[None]
            features = model.masks.condition(context.mask_features[image][None], [maps[-1]])
            masks.append(model.masks(features, queries)[0][0, 0])
        assert relative_error(found.low_resolution[target], torch.stack(masks).amax(dim=0)) < 1e-5
        of_image = target if image == 0 else target - 3
        assert relative_error(found.prior.maps[image][of_image], torch.cat(maps).amax(dim=0)) < 1e-5
    assert found.prior.anchors.similarity.shape == (5 * A, 64)
    assert [len(maps) for maps in found.prior.anchors.maps] == [3 * A, 2 * A]


@torch.inference_mode()
def test_fused_priors_begin_as_their_mean():
    model, registry = make_model(anchor_priors="fused")
    batch = make_batch(model.eval(), registry, scenes())
    found = model(batch).segmentation
    each = found.prior.anchors.responses.unflatten(0, (-1, A))
    assert relative_error(found.prior.responses, each.mean(dim=1)) < 1e-5
    assert found.low_resolution.shape[0] == 5 and found.counts == (3, 2)
    fusion = AnchorFusion(A)
    torch.nn.init.normal_(fusion.outer.weight)
    fused = fusion(each, (8, 8))
    assert fused.shape == (5, 64) and fused.min() >= 0 and fused.max() <= 1


@pytest.mark.parametrize("priors", ["each", "fused"])
def test_it_trains_saves_and_writes(priors, tmp_path):
    model, registry = make_model(anchor_priors=priors, anchor_diversity=0.5)
    set_trainable(model, "paper")
    assert ("anchor fusion" in trainable_groups(model)) == (priors == "fused")
    batch = make_batch(model, registry, scenes())
    losses = Objective(LossWeights(), model.head)(model(batch), batch)
    losses.total.backward()
    assert 0 < float(losses.terms["likeness_bce"]) <= 0.5
    gradient = model.head.modules["query_bank"].positions.grad
    assert gradient.shape[0] == 7 + A and all(row.any() for row in gradient)
    save_model(model, registry, tmp_path / "model")
    again, _ = load_model(tmp_path / "model")
    asked = make_batch(model, registry, several_images(), share_prefix=False)
    answer = [*registry.encode_piece("a thing"), *model.bank_ids]
    made = [generate(one.eval(), asked, answer=answer) for one in (model, again)]
    assert torch.equal(made[0].segmentation.low_resolution, made[1].segmentation.low_resolution)
    assert len(made[0].target_rows) == len(made[0].ids)


def test_likeness():
    same = torch.rand(2, 1, 5).expand(-1, 3, -1)
    assert torch.allclose(likeness(same), torch.ones(2))
    apart = torch.eye(4)[None]
    assert likeness(apart).item() == 0
    half = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    assert likeness(half).item() == pytest.approx(0.5**0.5)
    assert likeness(torch.rand(2, 1, 5)).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"bank_length": "random"}, "num_anchors is 2, which bank_length random does not go with"),
        ({"num_latents": 0}, "num_anchors is 2, and each has a prior of its own"),
        ({"contextual_queries": False}, "num_anchors is 2, and each has a prior of its own"),
    ],
)
def test_what_does_not_go_together(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        Method(num_anchors=2, **values)


def boxes(*spans: tuple[int, int]) -> torch.Tensor:
    masks = torch.zeros(len(spans), 6, 12, dtype=torch.bool)
    for mask, (first, last) in zip(masks, spans, strict=True):
        mask[1:5, first:last] = True
    return masks


def test_anchors_are_matched_with_objects():
    left, right = boxes((0, 4), (8, 12))
    parts = torch.stack([torch.where(mask, 5.0, -5.0) for mask in (right, boxes((0, 0))[0], left)])
    parts = torch.stack([parts, parts]).requires_grad_()
    found = matched_loss(parts, [torch.stack([left, right]), boxes()])
    wanted = mask_loss(parts[0], torch.stack([right, boxes((0, 0))[0], left]))
    assert torch.allclose(found.bce[0], wanted.bce.mean()) and torch.allclose(found.dice[0], wanted.dice.mean())
    assert found.bce[1] == 0 and found.dice[1] == 0
    (found.bce + found.dice).sum().backward()
    assert parts.grad[0].any() and not parts.grad[1].any()
    assert found.bce[0] < 0.01


def test_more_objects_than_anchors():
    objects = boxes((0, 3), (4, 7), (8, 12))
    parts = torch.where(objects[2], 5.0, -5.0)[None, None]
    assert matched_loss(parts, [objects]).bce.item() < 0.01


def test_objects_reach_the_loss_and_masks_of_anchors_the_answer():
    model, registry = make_model(anchor_instances=True)
    sample = make_sample(0, conversations=2)
    halves = tuple(
        np.stack([mask & (np.arange(80) < split), mask & (np.arange(80) >= split)])
        for mask, split in zip(sample.masks, (30, 40), strict=True)
    )
    batch = make_batch(model, registry, [replace(sample, instances=halves), make_sample(1)])
    assert [len(of_image) for of_image in batch.conversations.instances] == [2, 0]
    losses = Objective(LossWeights(), model.head)(model(batch), batch)
    assert losses.terms["instance_bce"] > 0 and losses.terms["instance_dice"] > 0
    predictor = AnchorSegPredictor(model, registry)
    predictor.set_image(sample.image)
    (target,) = predictor.predict("the red thing", mode="mask").targets
    assert target.parts.shape == target.anchor_priors.shape == (A, *target.mask.shape)


def test_nms_keeps_the_best_of_those_that_drew_the_same():
    masks = torch.where(boxes((0, 4), (0, 4), (0, 5), (8, 12)), 5.0, -5.0)[None].expand(2, -1, -1, -1)
    scores = torch.tensor([[0.5, 0.9, 0.7, 0.1], [0.9, 0.5, 0.7, 0.1]])
    assert kept_by_nms(masks, scores).tolist() == [[False, True, False, True], [True, False, False, True]]
    assert kept_by_nms(masks, scores, most=0.9).tolist() == [[False, True, True, True], [True, False, True, True]]
    model, registry = make_model(anchor_merge="nms")
    batch = make_batch(model, registry, scenes())
    with torch.inference_mode():
        merged = model.eval()(batch).segmentation.low_resolution
        model.method = replace(model.method, anchor_merge="union")
        united = model(batch).segmentation.low_resolution
    assert torch.isfinite(merged).all() and (merged <= united).all()


FAMILIES = {
    "reason_seg": "ReasonSeg|train", "refer_seg": "grefcoco", "multi_reason_seg": "MultiReasonSeg|train"
}  # fmt: skip


@pytest.mark.parametrize(("family", "name"), FAMILIES.items())
def test_families_tell_objects_apart(family, name, tmp_path):
    if family == "reason_seg":
        write_scenes(tmp_path, counts={"train": 12, "val": 1, "test": 1}, seed=0)
    else:
        write_layouts(tmp_path, families=[family], images=12, seed=0)
    for wanted in (True, False):
        options = FamilyOptions(sets={family: name}, instances=wanted)
        ((_, source),) = training_sources(family, DataFolder(tmp_path, tmp_path / "index"), options)
        counts = []
        for index in range(len(source)):
            sample = source.training_sample(index, np.random.default_rng(index))
            assert len(sample.instances) == (len(sample.masks) if wanted else 0)
            for mask, objects in zip(sample.masks, sample.instances, strict=wanted):
                assert np.array_equal(objects.any(axis=0), mask) and objects.any(axis=(1, 2)).all()
                counts.append(len(objects))
        assert not wanted or max(counts) > (family != "multi_reason_seg"), "a mask of several objects"
