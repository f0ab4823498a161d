"""Building from pretrained parts: LLaVA in transformers' layout and SAM's own file, at small size, strictly."""

import dataclasses

import pytest
import torch
from transformers import LlavaForConditionalGeneration

from anchorseg import build, presets
from anchorseg.build import build_for_training, load_model, save_model
from anchorseg.settings import TrainSettings
from model.sam import SamBackbone
from tests.conftest import make_batch, make_model, make_sample
from utils.errors import CheckpointError

BASE = 1000  # pieces of the tiny tokenizer


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Folders as users have them, with small sizes under the name 7b."""
    monkeypatch.setitem(presets.SIZES, "7b", presets.SIZES["tiny"])
    config, sizes = presets.tiny(BASE + 64)
    torch.manual_seed(1)
    llava = LlavaForConditionalGeneration(config)
    llava.save_pretrained(tmp_path / "llava")
    (tmp_path / "llava" / "tokenizer.model").write_bytes(build.tiny_tokenizer_model())
    sam = {name: value for name, value in SamBackbone(sizes).state_dict().items() if name != "mask_token_positions"}
    torch.save(sam, tmp_path / "sam.pth")
    settings = TrainSettings(
        preset="7b",
        version=str(tmp_path / "llava"),
        vision_pretrained=str(tmp_path / "sam.pth"),
        precision="fp32",
        lora_r=4,
    )
    return settings, llava, sam


def test_every_pretrained_tensor_arrives(parts):
    settings, llava, sam = parts
    model, registry = build_for_training(settings)
    assert len(registry) == BASE + 11 and registry.segment_id == BASE
    own = model.llava.network.state_dict()
    for name, value in llava.state_dict().items():
        found = own.get(name, own.get(name.replace("_proj.weight", "_proj.base_layer.weight")))
        rows = BASE if "embed_tokens" in name or "lm_head" in name else len(value)
        assert torch.equal(found[:rows], value[:rows]), name
    assert own["lm_head.weight"].shape[0] == BASE + 11
    for name, value in sam.items():
        assert torch.equal(model.sam.state_dict()[name], value), name
    batch = make_batch(model, registry, [make_sample(0)])
    assert model.eval()(batch).logits.isfinite().all()


def test_bf16_trains_a_step(parts):
    settings, _, _ = parts
    model, registry = build_for_training(dataclasses.replace(settings, precision="bf16", gradient_checkpointing=True))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    model.train()
    batch = make_batch(model, registry, [make_sample(0)]).to("cpu", torch.bfloat16)
    output = model(batch)
    assert output.segmentation.masks[0].dtype == torch.float32
    (output.logits.float().mean() + output.segmentation.masks[0].mean()).backward()


def test_missing_and_wrong_parts_are_named(parts, tmp_path):
    settings, _, sam = parts
    with pytest.raises(CheckpointError, match="--vision_pretrained is needed"):
        build_for_training(dataclasses.replace(settings, vision_pretrained=None))
    with pytest.raises(FileNotFoundError, match=r"fetch sam_vit_h_4b8939.pth"):
        build_for_training(dataclasses.replace(settings, vision_pretrained=str(tmp_path / "none.pth")))
    broken = {("x" + name if name == "mask_decoder.iou_token.weight" else name): value for name, value in sam.items()}
    torch.save(broken, tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match=r"2 tensor\(s\) differ: mask_decoder.iou_token.weight"):
        build_for_training(settings)
    (tmp_path / "llava" / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match=r"holds no tokenizer.model"):
        build_for_training(settings)


def test_a_saved_model_is_trained_further_without_its_parts(tmp_path):
    model, registry = make_model()
    save_model(model, registry, tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} >= {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.model", "added_tokens.json",
    }  # fmt: skip
    again, _ = load_model(tmp_path / "model")
    settings = TrainSettings(preset="tiny", version=str(tmp_path / "model"), precision="fp32", lora_r=0)
    further, _ = build_for_training(settings)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value) and torch.equal(further.state_dict()[name], value), name
    with pytest.raises(CheckpointError, match="num_latents 7"):
        build_for_training(dataclasses.replace(settings, num_latents=3))
    with pytest.raises(CheckpointError, match=r"holds no config.json"):
        load_model(tmp_path)
