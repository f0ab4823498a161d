"""LLaVA's parts: CLIP features are transformers' own, without the layers whose output is not used."""

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from model.llava import LlavaBackbone


@pytest.mark.parametrize(("feature_layer", "layers_run"), [(-1, 3), (-2, 2), (1, 1)])
def test_clip_features_are_transformers_own_and_no_layer_runs_for_nothing(feature_layer, layers_run):
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2},
        image_size=32,
        patch_size=8,
    )
    text = LlamaConfig(hidden_size=48, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
    llava = LlavaBackbone(
        LlavaConfig(vision_config=vision, text_config=text, vision_feature_layer=feature_layer, image_seq_length=16)
    ).eval()
    pixels, valid = torch.randn(2, 3, 32, 32), torch.ones(2, 16, dtype=torch.bool)
    valid[1, 8:] = False
    keys = torch.cat([valid.new_ones(2, 1), valid], dim=1)[:, None, None, :]
    expected = torch.stack(llava.network.model.get_image_features(pixels, attention_mask=keys).pooler_output)

    ran: list[int] = []
    for number, layer in enumerate(llava.network.model.vision_tower.encoder.layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    found = llava.image_features(pixels, valid, ())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert ran == list(range(layers_run))
