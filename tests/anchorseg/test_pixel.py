"""PixelLM's head and backbones: a batch and its images, what trains, and it learns."""

from __future__ import annotations

import pytest
import torch

from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.options import PixelOptions
from anchorseg.method.tokens import TokenRegistry
from anchorseg.training.settings import TrainSettings
from anchorseg.training.trainable import set_trainable, trainable_groups
from anchorseg.weights.presets import preset_config
from dataset.sample import Sample
from tests.conftest import make_batch, make_registry, make_sample
from utils.seeding import seed_torch


def make_model(published: bool = False) -> tuple[AnchorSegModel, TokenRegistry]:
    registry = make_registry(5)
    seed_torch(0)
    options = PixelOptions(num_latents=5, codebook_weights="constant" if published else "trained")
    names = ("llava-pixellm-24", "pixellm-published") if published else ("llava-pixellm", "pixellm")
    config = preset_config("tiny", options, registry, head="pixellm", language_model=names[0], mask_model=names[1])
    return AnchorSegModel(config), registry


def scenes() -> list[Sample]:
    return [make_sample(0, conversations=1), make_sample(1, (90, 50), conversations=2)]


@pytest.mark.parametrize(("published", "tokens"), [(False, 16), (True, 36)])
def test_a_batch_gives_what_each_image_gives(published, tokens):
    model, registry = make_model(published)
    batch = make_batch(model, registry, scenes())
    assert batch.images.language_pixels.shape == (2, 4, 96, 96) and batch.images.patch_valid.shape == (2, tokens)
    with torch.inference_mode():
        together = model.eval()(batch).segmentation
        alone = [model(make_batch(model, registry, [sample])).segmentation for sample in scenes()]
    assert together.low_resolution.shape == (3, 32, 32) and together.prior is None
    torch.testing.assert_close(
        together.low_resolution, torch.cat([one.low_resolution for one in alone]), rtol=1e-4, atol=1e-5
    )
    assert [tuple(masks.shape) for masks in together.masks] == [(1, 60, 80), (2, 90, 50)]


def test_what_trains():
    model, _ = make_model()
    set_trainable(model, "paper")
    groups = trainable_groups(model)
    assert {"projector", "mask projector", "mask decoder", "neck", "query projections", "codebook weights"} < set(
        groups
    )
    assert all(parameter.requires_grad for group in groups.values() for parameter in group)
    assert not any(parameter.requires_grad for parameter in model.masks.image_encoder.parameters())
    published, _ = make_model(published=True)
    set_trainable(published, "paper")
    left = trainable_groups(published)
    assert set(groups) - set(left) == {"neck", "codebook weights"}
    assert not published.masks.decoder.scale_weights.requires_grad
    assert not any(parameter.requires_grad for parameter in published.masks.neck.parameters())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"head": "pixellm", "num_latents": 5}, "--head pixellm does not go with --mask_model sam; use --mask_model"),
        ({"mask_model": "pixellm"}, "--head anchorseg does not go with --mask_model pixellm; use --mask_model sam"),
        ({"head": "pixellm", "mask_model": "pixellm", "num_latents": 4}, "a target has 5 tokens, which two scales"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        TrainSettings(size="tiny", **values)
