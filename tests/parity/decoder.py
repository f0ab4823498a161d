"""decoder.npz and quick_select.npz: mask decoder with the query bank, and the selection of states."""

from __future__ import annotations

import torch

from anchorseg.method.query_bank import gather_states
from anchorseg.method.spatial_prior import similarity
from dataset.batch import BankPositions
from model.network_backbone import IMAGE_PLACEHOLDER
from tests.parity.context import Context
from tests.parity.reference import Fixture

ORIGINAL = (480, 640)


@torch.inference_mode()
def check_decoder(fixture: Fixture, context: Context) -> None:
    """Every array of decoder.npz."""
    sam, positions = context.model.sam, context.model.query_bank.positions
    bank = fixture.tensor("in.text_embeds")
    prior = sam.prior_features(fixture.tensor("in.mask_prompt"))
    features = fixture.tensor("in.image_embeddings") + prior
    fixture.check("out.sparse", bank, note="the bank goes to the decoder as it is")
    fixture.check("out.dense", prior[:1])
    fixture.check("out.dense_pe", sam.position_encoding())
    masks, iou = sam(features, bank + positions)
    fixture.check("out.low_res_masks", masks)
    fixture.check("out.iou", iou)
    several, several_iou = sam(features, bank + positions, multimask=True)
    fixture.check("out.low_res_masks_multimask", several)
    fixture.check("out.iou_multimask", several_iou)
    alone, alone_iou = sam(features[:1], bank[:1, -1:] + positions[:1])
    fixture.check("out.low_res_masks_seg_only", alone)
    fixture.check("out.iou_seg_only", alone_iou)
    full = context.model.masks.to_image(masks[:, 0], context.model.config.mask_view.frame(ORIGINAL), ORIGINAL)
    fixture.check("out.postprocessed_480x640", full[:, None])


def check_selection(fixture: Fixture, context: Context) -> None:
    """Every array of quick_select.npz; its ids hold the image as one placeholder, its states hold every patch."""
    ids, hidden = fixture.tensor("input_ids"), fixture.tensor("last_hidden")
    rows, ends = (ids == int(fixture.input("seg_id"))).nonzero(as_tuple=True)
    num_tokens = hidden.shape[1] - ids.shape[1] + 1
    num_latents = context.model.method.num_latents
    columns = ends.unsqueeze(1) + num_tokens - 1 + torch.arange(-num_latents, 1)
    contextual, anchors = gather_states(hidden, BankPositions(rows=rows, columns=columns, counts=(len(rows),)))
    fixture.check("seg_embeds", anchors)
    fixture.check("seg_embeds_for_sam", anchors)
    fixture.check("latent_embeds", contextual)
    predicting = torch.zeros(hidden.shape[:2], dtype=torch.bool)
    predicting[rows, columns[:, -1] - 1] = True
    fixture.check("seg_token_mask", predicting)
    starts = (ids == IMAGE_PLACEHOLDER).int().argmax(dim=1).tolist()
    states = torch.stack([hidden[row, starts[row] : starts[row] + num_tokens] for row in range(len(ids))])
    fixture.check("image_embeds", states[rows])
    fixture.check("similarity", similarity(anchors, states[rows]))
