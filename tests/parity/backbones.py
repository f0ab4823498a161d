"""clip_tower.npz and sam_image_encoder.npz: the two image encoders."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tests.parity import rules
from tests.parity.context import Context
from tests.parity.reference import Fixture
from utils import geometry

EVALUATION_IMAGE = (480, 640, 3)
"""Height, width and seed of the image that the evaluation files show."""


@torch.inference_mode()
def check_clip(fixture: Fixture, context: Context) -> None:
    """Every array of clip_tower.npz."""
    config, network = context.model.config, context.model.llava.network.model
    pixels = fixture.tensor("in.images_clip")
    contents = [tuple(size) for size in fixture.input("in.clip_resize_list").tolist()]
    frame = config.language_view.frame((1, 1))
    valid = torch.stack([geometry.patch_validity(replace(frame, content=content)) for content in contents])
    keys = torch.cat([valid.new_ones(len(valid), 1), valid], dim=1)
    fixture.check("mid.mask_for_llm", valid.float(), tolerance=0)
    fixture.check("mid.vit_attention_mask", keys.float(), tolerance=0)
    seen: dict[str, Tensor] = {}
    handle = network.multi_modal_projector.register_forward_pre_hook(
        lambda module, inputs: seen.update(patches=inputs[0])
    )
    try:
        context.model.llava.image_features(pixels, valid, ())
    finally:
        handle.remove()
    fixture.check("out.selected_patches", seen["patches"])
    layer = config.language_config.vision_feature_layer
    for name, mask in (("masked", keys[:, None, None, :]), ("unmasked", None)):
        outputs = network.vision_tower(pixels, attention_mask=mask, output_hidden_states=True)
        fixture.check(f"out.hidden_m2_{name}", outputs.hidden_states[layer])


@torch.inference_mode()
def check_sam(fixture: Fixture, context: Context) -> None:
    """Every array of sam_image_encoder.npz."""
    sam = context.model.sam
    pixels = sam.view.pixels(rules.image(*EVALUATION_IMAGE))
    fixture.check("out.image_embeddings", sam.image_features(pixels[None]))
    if "note" in fixture:
        fixture.remark("note", str(fixture.input("note")))
