"""Building from pretrained parts: LLaVA in transformers' layout and SAM's own file, at small size, strictly."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers import LlavaForConditionalGeneration

from anchorseg.training.build import build_for_training, check_weights
from anchorseg.training.pretrained import join_pretrained
from anchorseg.training.settings import TrainSettings
from anchorseg.weights.folder import load_model, save_model, tiny_tokenizer_model
from model.llava import SIZES as LLAVA_SIZES
from model.sam import SIZES as SAM_SIZES
from model.sam import SamBackbone
from tests.conftest import make_batch, make_model, make_sample
from utils.errors import CheckpointError

BASE = 1000  # pieces of the tiny tokenizer


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Folders as users have them, with small sizes under the name 7b."""
    for sizes_of in (LLAVA_SIZES, SAM_SIZES):
        monkeypatch.setitem(sizes_of, "7b", sizes_of["tiny"])
    config, sizes = LLAVA_SIZES["tiny"](BASE + 64), SAM_SIZES["tiny"]
    torch.manual_seed(1)
    llava = LlavaForConditionalGeneration(config)
    llava.save_pretrained(tmp_path / "llava")
    (tmp_path / "llava" / "tokenizer.model").write_bytes(tiny_tokenizer_model())
    sam = {name: value for name, value in SamBackbone(sizes).state_dict().items() if name != "mask_token_positions"}
    torch.save(sam, tmp_path / "sam.pth")
    settings = TrainSettings(
        preset="7b",
        size="7b",
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


def test_dtypes_of_published_files_are_not_those_of_a_saved_model(parts, tmp_path):
    """As llava-hf/llava-1.5-7b-hf says float16 of its language model."""
    settings, _, _ = parts
    file = Path(settings.version) / "config.json"
    config = json.loads(file.read_text())
    config["text_config"]["dtype"] = config["dtype"] = "float16"
    file.write_text(json.dumps(config))
    model, registry, _ = join_pretrained(settings, torch.bfloat16, seed=0)
    save_model(model, registry, tmp_path / "saved")
    for dtype, wanted in (("auto", torch.bfloat16), ("fp32", torch.float32)):
        again, _ = load_model(tmp_path / "saved", dtype=dtype)
        assert {p.dtype for p in again.parameters()} == {wanted}
        assert again(make_batch(again, registry, [make_sample(0)]).to("cpu", wanted)).logits.isfinite().all()


def test_bf16_trains_a_step(parts):
    settings, _, _ = parts
    model, registry = build_for_training(dataclasses.replace(settings, precision="bf16", gradient_checkpointing="on"))
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
    with pytest.raises(CheckpointError, match=r"width 64 and depth 2, but vit_b is asked for; .* --sam_model"):
        build_for_training(dataclasses.replace(settings, sam_model="vit_b"))
    with pytest.raises(CheckpointError, match=r"holds its own CLIP; leave the flag out"):
        build_for_training(dataclasses.replace(settings, vision_tower=str(tmp_path / "llava")))
    with pytest.raises(CheckpointError, match=r"width 128 and 2 layers, but size 13b has 5120 and 40"):
        build_for_training(dataclasses.replace(settings, size="13b"))
    with pytest.raises(CheckpointError, match=r"--version nowhere does not exist"):
        build_for_training(dataclasses.replace(settings, version="nowhere"))
    broken = {("x" + name if name == "mask_decoder.iou_token.weight" else name): value for name, value in sam.items()}
    torch.save(broken, tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match=r"missing: mask_decoder.iou_token.weight; .* unknown: xmask_decoder"):
        build_for_training(settings)
    torch.save({"image_encoder.pos_embed": torch.zeros(1)}, tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match=r"not those of a SAM"):
        build_for_training(settings)
    (tmp_path / "llava" / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match=r"holds no tokenizer.model"):
        build_for_training(settings)


ORIGINAL = {
    "model.language_model.": "model.",
    "model.multi_modal_projector.linear_1.": "model.mm_projector.0.",
    "model.multi_modal_projector.linear_2.": "model.mm_projector.2.",
    "lm_head.": "lm_head.",
}


def write_original(parts, folder, **changes):
    """The same weights in LLaVA's original layout, in two `.bin` shards, and a whole CLIP of its own."""
    settings, llava, _ = parts
    text, vision = llava.config.text_config, llava.config.vision_config
    language, clip = {}, {"text_model.final_layer_norm.weight": torch.ones(4), "logit_scale": torch.ones(())}
    for name, value in llava.state_dict().items():
        if name.startswith("model.vision_tower."):
            clip["vision_model." + name.removeprefix("model.vision_tower.").removeprefix("vision_model.")] = value
        else:
            begin = next(key for key in ORIGINAL if name.startswith(key))
            value = value[:BASE] if "embed_tokens" in name or "lm_head" in name else value
            language[ORIGINAL[begin] + name.removeprefix(begin)] = value.clone()
    language["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(16)
    base, tower = folder / "llava-v1.5", folder / "clip"
    base.mkdir(parents=True), tower.mkdir()
    names = list(language)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, members in shards.items():
        torch.save({name: language[name] for name in members}, base / file)
    index = {"weight_map": {name: file for file, members in shards.items() for name in members}}
    (base / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    config = {
        "model_type": "llava", "vocab_size": BASE, "hidden_size": text.hidden_size, "rms_norm_eps": text.rms_norm_eps,
        "intermediate_size": text.intermediate_size, "num_hidden_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads, "max_position_embeddings": text.max_position_embeddings,
        "mm_hidden_size": vision.hidden_size, "mm_projector_type": "mlp2x_gelu", "mm_vision_select_layer": -1,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336", "rope_scaling": None,
        "initializer_range": text.initializer_range,
    }  # fmt: skip
    (base / "config.json").write_text(json.dumps(config))
    (base / "tokenizer.model").write_bytes(tiny_tokenizer_model())
    torch.save(clip, tower / "pytorch_model.bin")
    vision_config = {**vision.to_dict(), **changes}
    (tower / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": vision_config}))
    return dataclasses.replace(settings, version=str(base), vision_tower=str(tower))


def test_both_layouts_of_the_same_weights_give_the_same_states(parts, tmp_path, capsys):
    first, registry = build_for_training(parts[0])
    second, _ = build_for_training(write_original(parts, tmp_path))
    printed = capsys.readouterr().out
    assert "1 refused (model.layers.*.self_attn.rotary_emb.inv_freq)" in printed and "text_model" in printed
    assert "1 new (mask_token_positions)" in printed
    for name, value in first.state_dict().items():
        if "lora_A" not in name:
            assert torch.equal(value, second.state_dict()[name]), name
    assert first.config.language_config.text_config.to_dict() == second.config.language_config.text_config.to_dict()
    batch = make_batch(first, registry, [make_sample(0)])
    assert torch.equal(*(model.eval().prefill(batch.images, batch.conversations) for model in (first, second)))


def test_original_layout_with_wrong_parts_is_refused(parts, tmp_path):
    settings = write_original(parts, tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"holds no CLIP .* give --vision_tower, .*clip-vit-large-patch14-336"):
        check_weights(dataclasses.replace(settings, vision_tower=None))
    with pytest.raises(CheckpointError, match=r"holds a CLIP for 224 pixels in patches of 12, but LLaVA-1.5 has 96"):
        check_weights(write_original(parts, tmp_path / "b", image_size=224))
    base = Path(settings.version)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "mm_projector_type": "linear"}))
    with pytest.raises(CheckpointError, match=r"mm_projector_type is 'linear'"):
        check_weights(settings)
    (base / "config.json").write_text(json.dumps({**config, "_name_or_path": "llava-7b-delta-v0"}))
    with pytest.raises(CheckpointError, match=r"delta weights .* add them to LLaMA"):
        check_weights(settings)


def test_delta_weights_are_known_by_their_norm(parts, tmp_path):
    settings = write_original(parts, tmp_path)
    base = Path(settings.version)
    for file in base.glob("*.bin"):
        torch.save({name: value * 0.01 for name, value in torch.load(file).items()}, base / file)
    with pytest.raises(CheckpointError, match="delta weights"):
        check_weights(settings)


def test_a_saved_model_is_trained_further_without_its_parts(tmp_path):
    model, registry = make_model()
    save_model(model, registry, tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} >= {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.model", "added_tokens.json",
    }  # fmt: skip
    again, _ = load_model(tmp_path / "model")
    settings = TrainSettings(preset="scratch", size="tiny", version=str(tmp_path / "model"), precision="fp32", lora_r=0)
    further, _ = build_for_training(settings)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value) and torch.equal(further.state_dict()[name], value), name
    with pytest.raises(CheckpointError, match="num_latents 7"):
        build_for_training(dataclasses.replace(settings, num_latents=3))
    with pytest.raises(CheckpointError, match=r"holds no config.json"):
        load_model(tmp_path)
