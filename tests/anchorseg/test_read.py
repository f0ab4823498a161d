"""READ's head: points that are segment-anything's own prompts, images by themselves or in a batch, and it learns."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.options import ReadOptions
from anchorseg.method.tokens import TokenRegistry
from anchorseg.training.trainable import set_trainable, trainable_groups
from anchorseg.weights.presets import preset_config
from dataset.sample import Sample
from model.backbones import mask_backbone
from tests.conftest import make_batch, make_registry, make_sample
from utils.geometry import Frame, tokens_to_map
from utils.seeding import seed_torch


def make_model(**options: object) -> tuple[AnchorSegModel, TokenRegistry]:
    registry = make_registry(0)
    seed_torch(0)
    config = preset_config("tiny", ReadOptions(**options), registry, head="read")
    return AnchorSegModel(config), registry


def two_scenes() -> list[Sample]:
    return [make_sample(0, conversations=1), make_sample(1, (90, 50), conversations=1)]


@pytest.mark.parametrize("positions", ["float32", "weights"])
def test_points_are_prompts_of_segment_anything(positions):
    seed_torch(0)
    backbone = mask_backbone("sam")
    sam = backbone(backbone.preset("tiny"), positions)
    points, labels = torch.rand(3, 7, 2) * sam.sizes.image_size, torch.randint(-1, 2, (3, 7))
    wanted, _ = sam.prompt_encoder(points=(points, labels), boxes=None, masks=None)
    torch.testing.assert_close(sam.point_prompts(points, labels), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("places", ["pixels", "grid"])
def test_a_batch_gives_what_each_image_gives(places):
    model, registry = make_model(points=40, point_places=places)
    with torch.inference_mode():
        together = model.eval()(make_batch(model, registry, two_scenes())).segmentation
        for number, sample in enumerate(two_scenes()):
            alone = model(make_batch(model, registry, [sample])).segmentation
            torch.testing.assert_close(together.low_resolution[number], alone.low_resolution[0], rtol=1e-4, atol=1e-5)
    assert together.prior is not None and [len(maps) for maps in together.prior.maps] == [1, 1]


def test_a_crop_gives_points_of_the_middle():
    model, registry = make_model(clip_view="crop", point_divisor=1, points=64)
    batch = make_batch(model, registry, [make_sample(0, (60, 120), conversations=1)])
    with torch.inference_mode():
        made = model.eval()(batch).segmentation
    (frame,), size = batch.images.language_frames, (60, 120)
    points = model.head.points(made.prior.similarity, made.prior.maps[0], frame, size).coordinates
    assert points[..., 0].min() >= 30 and points[..., 0].max() <= 90 and points[..., 1].max() > 50
    assert not made.prior.maps[0][0, :, :29].any(), "what the crop leaves out has no similarity"


@pytest.mark.parametrize("places", ["pixels", "grid"])
@pytest.mark.parametrize(("size", "grid"), [((60, 160), (3, 7)), ((160, 60), (7, 3))])
def test_a_view_without_padding_gives_points_of_all_its_cells(places, size, grid):
    model, _ = make_model(point_places=places, point_divisor=1)
    last = torch.zeros(1, grid[0] * grid[1])
    last[0, -1] = 1
    view = (grid[0] * 32, grid[1] * 32)
    frame = Frame(view, view, grid, padded=False)
    points = model.head.points(last, tokens_to_map(last, frame, size), frame, size)
    x, y = points.coordinates[0, 0].tolist()
    assert points.labels[0, 0] == 1 and x > size[1] * 0.6 and y > size[0] * 0.6


def test_points_have_a_part_in_the_mask_and_in_the_gradient():
    model, registry = make_model()
    batch = make_batch(model, registry, two_scenes())
    masks = model(batch).segmentation.low_resolution
    masks.sum().backward()
    assert all(
        float(table.weight.grad.abs().sum()) > 0
        for table in (*model.sam.prompt_encoder.point_embeddings[:2], model.sam.prompt_encoder.not_a_point_embed)
    )
    model.method = dataclasses.replace(model.method, points=1)
    assert not torch.allclose(model(batch).segmentation.low_resolution, masks)


def test_a_question_without_a_target_has_no_points():
    model, registry = make_model()
    batch = make_batch(model, registry, [make_sample(0, conversations=1)])
    nothing = dataclasses.replace(
        batch.conversations.targets,
        rows=batch.conversations.targets.rows[:0],
        columns=batch.conversations.targets.columns[:0],
        counts=(0,),
    )
    conversations = dataclasses.replace(batch.conversations, targets=nothing)
    with torch.inference_mode():
        found = model.eval()(dataclasses.replace(batch, conversations=conversations)).segmentation
    assert found.counts == (0,) and found.prior is not None and len(found.low_resolution) == 0


@pytest.mark.parametrize("scope", ["paper", "all"])
def test_tables_that_are_left_out_are_zero_and_stay_so(scope):
    model, registry = make_model(position_tables=False)
    tables = (model.sam.mask_token_positions, model.head.query.positions)
    assert all(table.any() for table in tables)
    set_trainable(model, scope)
    assert not any(table.any() or table.requires_grad for table in tables)
    assert not {"query positions", "mask-token table"} & set(trainable_groups(model))
    with_tables, _ = make_model()
    set_trainable(with_tables, scope)
    assert {"query positions", "mask-token table"} <= set(trainable_groups(with_tables))
    batch = make_batch(model, registry, two_scenes())
    model(batch).segmentation.low_resolution.sum().backward()
    assert all(table.grad is None for table in tables)
