"""Released checkpoints at small size: converted strictly, written back tensor for tensor, refused where they differ."""

import dataclasses
import json

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from anchorseg import AnchorSegPredictor
from anchorseg.method.config import AnchorSegConfig
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.options import Method
from anchorseg.method.tokens import TokenRegistry, TokenStrings
from anchorseg.weights.folder import load_model, save_model, tiny_tokenizer_model
from anchorseg.weights.official import convert, export
from anchorseg.weights.official_names import POSITIONS, TOWER, official_name, own_name
from anchorseg.weights.presets import token_ids
from model.sam import SamSizes
from scripts import convert_checkpoint
from tests.conftest import make_batch, make_sample
from utils.errors import CheckpointError, OutputExistsError
from utils.seeding import seed_torch
from utils.tensor_files import TensorFiles

PUBLISHED = Method(clip_statistics="sam", sam_position_precision="weights")
SAM = SamSizes(
    image_size=96, patch_size=12, encoder_width=32, encoder_depth=2, encoder_heads=2, global_attention=(1,),
    window_size=4, prompt_width=32, mask_channels=4, decoder_mlp=64, iou_head_width=32,
)  # fmt: skip
UNUSED = {
    "model.decoder_modules_initialized": torch.tensor(True),
    "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    "model.out_mm_projector.0.weight": torch.ones(32, 16),
    "ppm._layer_gate_W_similarity": torch.zeros(3, 32),
}


def small_model(method=PUBLISHED, strings=None):
    strings = strings or TokenStrings.released(method.num_latents)
    registry = TokenRegistry.create(tiny_tokenizer_model(), strings)
    clip = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=336, patch_size=14
    )
    llama = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=len(registry),
        num_key_value_heads=4, rms_norm_eps=1e-5, max_position_embeddings=4096, pad_token_id=None,
    )  # fmt: skip
    config = AnchorSegConfig(
        language_config=LlavaConfig(
            vision_config=clip, text_config=llama, vision_feature_layer=-2, image_seq_length=576
        ),
        mask_config=SAM,
        method=method,
        tokens=strings,
        token_ids=token_ids(registry),
    )
    seed_torch(3)
    return AnchorSegModel(config).eval(), registry


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A released folder, in two `.bin` shards with the unused tensors, the CLIP folder, and the model they mean."""
    root = tmp_path_factory.mktemp("released")
    model, registry = small_model()
    save_model(model, registry, root / "own")
    export(root / "own", root / "plain")
    tensors = dict(TensorFiles(root / "plain")) | UNUSED
    source = root / "source"
    source.mkdir()
    names = list(tensors)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, members in shards.items():
        torch.save({name: tensors[name] for name in members}, source / file)
    weight_map = {name: file for file, members in shards.items() for name in members}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for name in ("config.json", "tokenizer.model", "added_tokens.json", "tokenizer_config.json"):
        (source / name).write_bytes((root / "plain" / name).read_bytes())
    clip = root / "clip"
    clip.mkdir()
    tower = {
        official_name(name).removeprefix("clip."): value.clone()
        for name, value in model.state_dict().items()
        if name.startswith(TOWER)
    }
    torch.save(tower, clip / "pytorch_model.bin")
    (clip / "config.json").write_text(model.config.language_config.vision_config.to_json_string())
    return root, model


def test_names_go_both_ways():
    model, _ = small_model()
    names = list(model.state_dict())
    assert [own_name(official_name(name)) for name in names] == names
    assert official_name("llava.network.model.language_model.layers.0.self_attn.q_proj.lora_A.default.weight") == (
        "model.layers.0.self_attn.q_proj.lora_A.weight"
    )
    with pytest.raises(KeyError):
        official_name("elsewhere.weight")


def test_a_converted_checkpoint_is_the_model_it_means(released, tmp_path, capsys):
    root, model = released
    target = tmp_path / "converted"
    convert_checkpoint.main(["official", str(root / "source"), str(target), "--vision_tower", str(root / "clip")])
    printed = capsys.readouterr().out
    for name in UNUSED:
        assert name.replace(".0.", ".*.") in printed, name
    assert "Converted from source." in (target / "README.md").read_text()
    loaded, registry = load_model(target)
    assert loaded.method == PUBLISHED and loaded.config.mask_sizes == SAM
    assert registry.strings == TokenStrings.released(7)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    batch = make_batch(model, registry, [make_sample(0)])
    with torch.inference_mode():
        first, second = model(batch).segmentation, loaded(batch).segmentation
    assert torch.equal(first.masks[0], second.masks[0])
    predictor = AnchorSegPredictor.from_pretrained(target)
    predictor.set_image(make_sample(0).image)
    assert isinstance(predictor.predict("the red thing", max_new_tokens=4).text, str)


def test_the_way_back_gives_the_same_files(released, tmp_path, capsys):
    root, _ = released
    convert(root / "source", tmp_path / "converted", root / "clip")
    convert_checkpoint.main(["export", str(tmp_path / "converted"), str(tmp_path / "back")])
    source, back = root / "source", tmp_path / "back"
    assert {path.name for path in back.iterdir()} == {path.name for path in source.iterdir()}
    for path in source.iterdir():
        if path.suffix != ".bin":
            assert (back / path.name).read_bytes() == path.read_bytes(), path.name
    first, second = TensorFiles(source), TensorFiles(back)
    assert first.shards == second.shards
    for name in first:
        assert torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype, name
    text = "Sure, it is [LATENT0] [LATENT1] [SEG].</s>"
    registries = [
        TokenRegistry.load(folder, TokenStrings.released(7)) for folder in (source, tmp_path / "converted", back)
    ]
    assert len({tuple(registry.encode(text, -200)) for registry in registries}) == 1


def test_an_own_model_is_exported_under_the_published_names(tmp_path):
    model, registry = small_model(strings=TokenStrings.for_bank(7))
    save_model(model, registry, tmp_path / "own")
    count = export(tmp_path / "own", tmp_path / "official")
    assert count == sum(not name.startswith(TOWER) for name in model.state_dict())
    added = json.loads((tmp_path / "official" / "added_tokens.json").read_text())
    assert added["[SEG]"] == registry.segment_id and added["[LATENT6]"] == registry.reasoning_ids[6]
    for method in (Method(), Method(clip_statistics="sam", contextual_queries=False)):
        other, registry = small_model(method)
        save_model(other, registry, tmp_path / f"{method.clip_statistics}")
        with pytest.raises(CheckpointError, match=r"which the published code does not know"):
            export(tmp_path / f"{method.clip_statistics}", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def copied(root, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for path in (root / "source").iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    return source


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_shard(source, change):
    for shard in source.glob("*.bin"):
        torch.save(change(torch.load(shard)), shard)
    index = source / "pytorch_model.bin.index.json"
    names = {name: shard.name for shard in source.glob("*.bin") for name in torch.load(shard)}
    index.write_text(json.dumps({"weight_map": names}))


def drop(source, token):
    added = source / "added_tokens.json"
    table = json.loads(added.read_text())
    kept = sorted((key for key in table if key != token), key=table.__getitem__)
    added.write_text(json.dumps({key: min(table.values()) + index for index, key in enumerate(kept)}))


GATE = "ppm._layer_gate_W_similarity"
BAD = {
    "tokenizer without its tokens": (lambda s: (s / "added_tokens.json").unlink(), r"without the added tokens"),
    "tokenizer without SEG": (lambda s: drop(s, "[SEG]"), r"added token\(s\) \[SEG\] have no id"),
    "tokenizer of another K": (lambda s: drop(s, "[LATENT6]"), r"tokens, 6 of them latent, but .* rows"),
    "unpadded views": (lambda s: edit_json(s / "config.json", pad_train_clip_images=False), r"pad_train_clip_images"),
    "states of several layers": (lambda s: edit_json(s / "config.json", mode=3), r"mode is 3"),
    "renamed tensor": (
        lambda s: edit_shard(s, lambda t: {k.replace("text_hidden_fcs.0.2.b", "text_fcs.b"): v for k, v in t.items()}),
        r"missing: query_bank.anchor_projection.2.bias; .*unknown: model.text_fcs.bias",
    ),
    "trained gate": (
        lambda s: (
            edit_json(s / "config.json", mode=None),
            edit_shard(s, lambda t: {k: v + 1 if k == GATE else v for k, v in t.items()}),
        ),
        r"layer gate is trained",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(BAD))
def test_a_checkpoint_that_means_something_else_is_refused(released, tmp_path, case):
    root, _ = released
    spoil, message = BAD[case]
    source = copied(root, tmp_path)
    spoil(source)
    with pytest.raises(CheckpointError, match=message):
        convert(source, tmp_path / "target", root / "clip")
    assert not (tmp_path / "target").exists()


def test_an_untrained_gate_means_the_last_layer(released, tmp_path):
    root, _ = released
    source = copied(root, tmp_path)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({key: config[key] for key in config if key != "mode"}))
    convert(source, tmp_path / "target", root / "clip")
    assert load_model(tmp_path / "target")[0].method == PUBLISHED


def test_a_clip_of_another_resolution_and_an_existing_target_are_refused(released, tmp_path):
    root, model = released
    clip = tmp_path / "clip"
    clip.mkdir()
    config = dataclasses.replace(model.config.language_config.vision_config, image_size=224)
    (clip / "config.json").write_text(config.to_json_string())
    (clip / "pytorch_model.bin").write_bytes((root / "clip" / "pytorch_model.bin").read_bytes())
    with pytest.raises(CheckpointError, match=r"CLIP for 224 pixels, but released checkpoints need 336"):
        convert(root / "source", tmp_path / "target", clip)
    with pytest.raises(OutputExistsError, match=r"not empty; give a new folder"):
        convert(root / "source", root / "own", root / "clip")


@pytest.mark.parametrize("latents", [0, 1, 3, 6, 7])
def test_of_the_eight_published_rows_those_of_the_latents_count(tmp_path, latents):
    model, registry = small_model(dataclasses.replace(PUBLISHED, num_latents=latents))
    save_model(model, registry, tmp_path / "own")
    export(tmp_path / "own", tmp_path / "published")
    # Copies: the file that they are mapped from is written anew below.
    tensors = {name: value.clone() for name, value in TensorFiles(tmp_path / "published").items()}
    own = tensors[POSITIONS]
    tensors[POSITIONS] = torch.cat([own, torch.randn(8 - len(own), own.shape[1])])
    if latents == 0:
        anchor = {name: value for name, value in tensors.items() if "text_hidden_fcs" in name}
        tensors |= {name.replace("text_hidden", "latent_hidden"): value + 1 for name, value in anchor.items()}
    (file,) = (tmp_path / "published").glob("*.bin")
    torch.save(tensors, file)
    clip = tmp_path / "clip"
    clip.mkdir()
    torch.save(
        {
            official_name(name).removeprefix("clip."): value.clone()
            for name, value in model.state_dict().items()
            if name.startswith(TOWER)
        },
        clip / "pytorch_model.bin",
    )
    (clip / "config.json").write_text(model.config.language_config.vision_config.to_json_string())

    convert(tmp_path / "published", tmp_path / "converted", clip)
    loaded, _ = load_model(tmp_path / "converted")
    assert loaded.method.num_latents == latents
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    export(tmp_path / "converted", tmp_path / "again")
    again = TensorFiles(tmp_path / "again")
    assert set(again) == set(tensors) and all(torch.equal(again[name], value) for name, value in tensors.items())
