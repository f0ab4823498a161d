"""Forward passes: every value from the raw images to masks and losses, in files forward_train* and forward_eval*."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from anchorseg.method.head import Prior
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.query_bank import gather_states
from dataset.batch import PADDING, BankPositions, Batch
from tests.parity import gres
from tests.parity.batches import Inputs, collapse, make_batch, read_inputs
from tests.parity.context import Context, plain_attention
from tests.parity.reference import Fixture
from tests.parity.trace import Trace, image_states, predicting, run
from utils import geometry

EAGER_ARRAYS = (
    "out.logits",
    "mid.seg_token_mask",
    "mid.seg_token_embeds",
    "mid.latent_token_embeds",
    "mid.seg_image_token_embeds_norm",
    "out.similarity",
    "out.pred_masks.",
    "out.token_to_mask_map.",
    "out.similarity_minmax.",
    "out.output_ids",
    "out.gt_masks.",
)
"""Beginnings of what files of plain attention hold; their inputs are in the file of the same name without `_eager`."""

SHARED = ("out.similarity", "out.pred_masks.", "out.token_to_mask_map.", "mid.low_res_masks.")
"""What is compared once more with all conversations of an image behind one prefix."""

Values = dict[str, Tensor]


def is_eager(fixture: Fixture) -> bool:
    """Whether a file follows plain attention."""
    return fixture.path.stem.endswith("_eager")


def inputs_of(fixture: Fixture, context: Context) -> Inputs:
    """Inputs of a file, or of the file whose inputs it shares."""
    if "in.input_ids" in fixture:
        return read_inputs(fixture)
    return read_inputs(context.beside(fixture.file.replace("_eager", "")))


def check_evaluation(fixture: Fixture, context: Context) -> None:
    """Every array of a forward_eval* file."""
    model = context.model
    inputs = inputs_of(fixture, context)
    with torch.inference_mode(), plain_attention(model, is_eager(fixture)):
        if gres.has_two_passes(fixture):
            inputs, decisions = gres.check_first_pass(fixture, inputs, model)
        else:
            decisions = torch.zeros(0, dtype=torch.long)
        batch = make_batch(inputs, model, share_prefix=False)
        # Replaced <REJ> have no latents before them.
        positions = gres.positions_of(batch) if gres.has_two_passes(fixture) else None
        trace = run(model, batch, positions)
        values = forward_values(model, batch, trace, positions or batch.conversations.targets)
        values["out.output_ids"] = decisions
        values |= {f"out.gt_masks.{image}": torch.from_numpy(masks) for image, masks in enumerate(inputs.masks)}
        check_values(fixture, values, batch, labels=False)
        if gres.has_two_passes(fixture):
            return
        check_shared(fixture, model, inputs)


def check_shared(fixture: Fixture, model: AnchorSegModel, inputs: Inputs) -> Trace:
    """Compare once more with all conversations of an image behind one prefix."""
    batch = make_batch(inputs, model, share_prefix=True)
    trace = run(model, batch)
    values = outputs_by_image(trace)
    values["out.similarity"] = _prior(trace).similarity
    for name, value in values.items():
        if name.startswith(SHARED):
            fixture.check(name, value, label="(shared prefix)", optional=True)
    return trace


def check_values(fixture: Fixture, values: Values, batch: Batch, *, labels: bool) -> None:
    """Compare computed values with the arrays of their names, and the views with the images given."""
    eager = is_eager(fixture)
    values |= view_values(batch)
    optional = ("in.images", "in.images_clip", *(() if labels else ("mid.llm_labels",)))
    attended = values["mid.llm_attention_mask"].numpy()
    for name, value in values.items():
        may_lack = not name.startswith(EAGER_ARRAYS) if eager else name in optional
        # At text padding plain attention gives the published code something else, and nothing reads it.
        where = attended if eager and name.startswith(("out.logits", "mid.hidden.")) else None
        fixture.check(name, value, where=where, optional=may_lack, note="" if where is None else "where attended")


def view_values(batch: Batch) -> Values:
    """What the file says of the inputs beyond the raw ones."""
    sizes = [
        [list(frame.content), list(size)]
        for frame, size in zip(batch.images.mask_frames, batch.images.sizes, strict=True)
    ]
    return {
        "in.images": batch.images.mask_pixels,
        "in.images_clip": batch.images.language_pixels,
        "in.attention_masks": collapse(batch, batch.conversations.segments != PADDING),
        "in.sam_mask_shape_list": torch.tensor(sizes),
        "in.clip_resize_list": torch.tensor([frame.content for frame in batch.images.language_frames]),
    }


def forward_values(model: AnchorSegModel, batch: Batch, trace: Trace, positions: BankPositions) -> Values:
    """Arrays of a forward pass by the names of the files."""
    hidden = trace.hidden
    contextual, anchors = gather_states(hidden, positions)
    layers = [*trace.layers, hidden]
    patches = batch.images.patch_valid[batch.conversations.row_images]
    states = image_states(batch, hidden)[positions.rows]
    return {
        "mid.image_features": trace.seen["projector"][batch.conversations.row_images],
        "mid.vit_mask_for_llm": patches.float(),
        "mid.llm_attention_mask": model.token_valid(batch.conversations, batch.images.patch_valid),
        "mid.inputs_embeds": trace.layers[0],
        "mid.llm_labels": batch.conversations.labels,
        "out.logits": model.llava.logits(hidden),
        **{f"mid.hidden.{index}": layer for index, layer in enumerate(layers)},
        "mid.seg_token_mask": predicting(positions, batch.conversations.input_ids.shape),
        "mid.seg_token_embeds": anchors,
        "mid.latent_token_embeds": contextual,
        "mid.seg_image_token_embeds_norm": states.norm(dim=-1),
        "out.similarity": _prior(trace).similarity,
        "mid.sam_image_embeddings_s4": trace.seen["sam"][:, :, ::4, ::4],
        **outputs_by_image(trace),
        **_parts_by_image(trace),
    }


def _prior(trace: Trace) -> Prior:
    prior = trace.masks.prior
    assert prior is not None
    return prior


def outputs_by_image(trace: Trace) -> Values:
    """Maps and masks of each image."""
    masks, prior = trace.masks, _prior(trace)
    chosen: list[Callable[[int], tuple[str, Tensor]]] = [
        lambda image: ("out.pred_masks", masks.masks[image]),
        lambda image: ("mid.similarity_map_256", geometry.map_to_prompt(prior.maps[image])),
        lambda image: ("mid.low_res_masks", masks.low_resolution.split(masks.counts)[image][:, None]),
        lambda image: ("mid.iou_predictions", masks.iou.split(masks.counts)[image][:, None]),
        lambda image: ("out.token_to_mask_map", prior.maps[image]),
        lambda image: ("out.similarity_minmax", prior.responses.split(masks.counts)[image]),
    ]
    pairs = [(image, make(image)) for image in range(len(masks.masks)) for make in chosen]
    return {f"{name}.{image}": value.detach() for image, (name, value) in pairs}


def _parts_by_image(trace: Trace) -> Values:
    """Query bank before its positions, and prior features, of each image."""
    anchors = trace.seen["anchor"]
    contextual = trace.seen.get("contextual", anchors.new_zeros(len(anchors), 0, anchors.shape[-1]))  # K = 0
    bank = torch.cat([contextual, anchors[:, None]], dim=1)
    values: Values = {}
    parts = {
        "mid.pred_embeddings": anchors,
        "mid.latent_embeddings": contextual,
        "mid.sparse_embeddings": bank,
        "mid.dense_embeddings_s4": trace.seen["prior"][:, :, ::4, ::4],
    }
    for name, whole in parts.items():
        for image, of_image in enumerate(whole.split(trace.masks.counts)):
            values[f"{name}.{image}"] = of_image
    return values
