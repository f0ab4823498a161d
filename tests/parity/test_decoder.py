"""SAM's decoder with the query bank, and the selection of states, against the published implementation."""

import numpy as np
import torch

from anchorseg.query_bank import BankPositions, gather_states, locate_banks
from anchorseg.spatial_prior import similarity
from model.sam import SamBackbone, SamSizes
from tests.parity import rules
from tests.parity.reference import assert_matches, load
from utils import geometry


def backbone() -> tuple[SamBackbone, torch.Tensor]:
    """SAM with the fixtures' weights, and the bank's positional embeddings."""
    sam = SamBackbone(SamSizes(encoder_width=32, encoder_depth=2, encoder_heads=2, global_attention=(1,)))
    released = "model.visual_model."
    table = released + "mask_decoder.positional_embedding"
    names = {name: table if name == "mask_token_positions" else released + name for name in sam.state_dict()}
    weights = {
        name: torch.from_numpy(rules.tensor(names[name], value.shape)) for name, value in sam.state_dict().items()
    }
    sam.load_state_dict(weights)
    positions = rules.tensor(released + "mask_decoder.latent_token_positional_embedding", (8, 256))
    return sam.eval(), torch.from_numpy(positions)


def tensor(name: str) -> torch.Tensor:
    return torch.from_numpy(np.asarray(load(name)))


@torch.inference_mode()
def test_prompt_encoder_and_mask_decoder(reference):
    sam, positions = backbone()
    bank, prompts = tensor("decoder/in.text_embeds"), tensor("decoder/in.mask_prompt")
    prior = sam.prior_features(prompts)
    features = tensor("decoder/in.image_embeddings") + prior
    assert_matches("decoder/out.dense", prior[:1])
    assert_matches("decoder/out.dense_pe", sam.position_encoding())
    masks, iou = sam.decode(features, bank + positions)
    assert_matches("decoder/out.low_res_masks", masks)
    assert_matches("decoder/out.iou", iou)
    several, several_iou = sam.decode(features, bank + positions, multimask=True)
    assert_matches("decoder/out.low_res_masks_multimask", several)
    assert_matches("decoder/out.iou_multimask", several_iou)
    alone, alone_iou = sam.decode(features[:1], bank[:1, -1:] + positions[:1])
    assert_matches("decoder/out.low_res_masks_seg_only", alone)
    assert_matches("decoder/out.iou_seg_only", alone_iou)
    size = (480, 640)
    full = geometry.upscale_masks(masks[:, 0], 1024, geometry.longest_side_size(size, 1024), size)
    assert_matches("decoder/out.postprocessed_480x640", full[:, None])


def test_states_are_those_that_predict_the_bank(reference):
    ids, segment = tensor("quick_select/input_ids"), int(load("quick_select/seg_id"))
    hidden = tensor("quick_select/last_hidden")
    rows, ends = (ids == segment).nonzero(as_tuple=True)
    # These ids hold the image as one placeholder; its other patches shift what follows.
    shift = hidden.shape[1] - ids.shape[1]
    columns = ends.unsqueeze(1) + shift + torch.arange(-7, 1)
    contextual, anchors = gather_states(hidden, BankPositions(rows, columns))
    assert_matches("quick_select/seg_embeds", anchors)
    assert_matches("quick_select/latent_embeds", contextual)
    predicting = torch.zeros(hidden.shape[:2], dtype=torch.bool)
    predicting[rows, ends + shift - 1] = True
    assert_matches("quick_select/seg_token_mask", predicting)
    start = [(row == -200).nonzero().item() for row in ids]
    image_states = torch.stack([hidden[row, start[row] : start[row] + 576] for row in rows.tolist()])
    assert_matches("quick_select/similarity", similarity(anchors, image_states))


def test_a_bank_out_of_order_is_refused():
    import pytest

    ids = torch.tensor([[1, 5, 11, 12, 10, 3], [1, 5, 12, 11, 10, 3]])
    assert locate_banks(ids[:1], (11, 12, 10)).columns.tolist() == [[2, 3, 4]]
    with pytest.raises(ValueError, match=r"row 1, position 4: <SEG> .id 10. follows ids \[12, 11\]"):
        locate_banks(ids, (11, 12, 10))
