"""Qwen-VL as it is published: its tensors reach the model strictly, in both layouts, tied tables included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from anchorseg.training.pretrained import join_pretrained, uninitialized
from anchorseg.training.settings import ModelSettings
from anchorseg.weights.folder import load_model, save_model, tiny_tokenizer
from model.backbones import language_backbone
from model.language_files import LanguageFiles, LanguageSource
from model.qwen_files import from_published
from tests.conftest import make_batch, make_sample
from utils.errors import CheckpointError
from utils.seeding import seed_torch

PUBLISHED = {
    ("qwen3-vl", "2b"): (151_936, 2_127_532_032),
    ("qwen3-vl", "4b"): (151_936, 4_437_815_808),
    ("qwen3-vl", "8b"): (151_936, 8_767_123_696),
    ("qwen2.5-vl", "7b"): (152_064, 8_292_166_656),
}
"""Rows of the published tables, and all parameters."""
PIECES = 151_669
LAYOUTS = {
    "as transformers saves": lambda name: name,
    "as first published": lambda name: name.replace("model.visual.", "visual.").replace(
        "model.language_model.", "model."
    ),
}


class MetaFiles(dict):
    """Tensors on the meta device in place of files."""

    path = Path("published")

    def shape(self, name: str) -> torch.Size:
        return self[name].shape


def published_on_meta(name: str, size: str) -> tuple:
    kind = language_backbone(name)
    rows, _ = PUBLISHED[name, size]
    with uninitialized(torch.bfloat16), torch.device("meta"):
        network = kind.Network(kind.preset(size, rows))
    values = network.state_dict()
    if network.config.tie_word_embeddings:
        del values["lm_head.weight"]  # as safetensors leaves out a second name
    return kind, values


@pytest.mark.parametrize(("name", "size"), PUBLISHED)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_published_names_and_shapes_load_strictly(name, size, layout):
    kind, values = published_on_meta(name, size)
    assert sum(value.numel() for value in values.values()) == PUBLISHED[name, size][1]
    with uninitialized(torch.bfloat16), torch.device("meta"):
        backbone = kind(kind.preset(size, PIECES + 10))
    files = MetaFiles({layout(own): value for own, value in values.items()})
    source = LanguageSource(files, from_published, lambda _: True, "$^")
    (report,) = backbone.load_published(LanguageFiles(None, b"", (source,)), torch.bfloat16, PIECES)
    assert report.new == () and report.refused == () and set(report.loaded.values()) == set(files)
    assert backbone.get_parameter("network.model.language_model.embed_tokens.weight").shape[0] == PIECES + 10
    del files[layout("model.visual.blocks.0.attn.qkv.weight")]
    with pytest.raises(CheckpointError, match=r"missing: model\.visual\.blocks\.0\.attn\.qkv\.weight"):
        backbone.load_published(LanguageFiles(None, b"", (source,)), torch.bfloat16, PIECES)


def published_folder(place: Path, name: str, layout: str = "as transformers saves", *, second_name: bool = False):
    """A folder as published, of the small size; with more rows than its tokenizer has pieces."""
    kind = language_backbone(name)
    seed_torch(1)
    network = kind.Network(kind.preset("tiny", 1100)).eval()
    network.save_pretrained(place)
    (place / "tokenizer.json").write_bytes(tiny_tokenizer(name))
    values = load_file(place / "model.safetensors")
    if second_name:
        values["lm_head.weight"] = values["model.language_model.embed_tokens.weight"].clone()
    save_file({LAYOUTS[layout](own): value for own, value in values.items()}, place / "model.safetensors")
    return network


def settings_of(place: Path, name: str, sam: Path) -> ModelSettings:
    return ModelSettings(
        size="tiny", language_model=name, version=str(place), vision_pretrained=str(sam), precision="fp32"
    )


@pytest.fixture(scope="module")
def sam(tmp_path_factory):
    from model.sam import SIZES, SamBackbone

    file = tmp_path_factory.mktemp("sam") / "sam.pth"
    own = SamBackbone(SIZES["tiny"]).state_dict()
    torch.save({name: value for name, value in own.items() if name != "mask_token_positions"}, file)
    return file


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["qwen3-vl", "qwen2.5-vl"])
def test_a_model_is_joined_of_published_parts_and_saved_again(tmp_path, sam, name, layout):
    network = published_folder(tmp_path / "published", name, layout)
    model, registry, reports = join_pretrained(settings_of(tmp_path / "published", name, sam), torch.float32, seed=0)
    assert "0 refused" in str(reports[0])
    wanted, pieces = network.state_dict(), registry.vocabulary_size
    for own, value in model.qwen.network.state_dict().items():
        table = own.endswith(("embed_tokens.weight", "lm_head.weight"))
        assert torch.equal(value[:pieces] if table else value, wanted[own][:pieces] if table else wanted[own]), own
    assert len(model.qwen.language_model.embed_tokens.weight) == len(registry)
    batch = make_batch(model, registry, [make_sample(0), make_sample(1, (90, 40))])
    made = model.eval()(batch)
    save_model(model, registry, tmp_path / "model")
    again, registry_again = load_model(tmp_path / "model")
    assert registry_again.added == registry.added
    found = again(make_batch(again, registry_again, [make_sample(0), make_sample(1, (90, 40))]))
    assert torch.equal(found.logits, made.logits)
    assert all(map(torch.equal, found.segmentation.masks, made.segmentation.masks))


def test_a_second_name_of_a_tied_table_is_not_needed(tmp_path, sam):
    published_folder(tmp_path, "qwen3-vl", second_name=True)
    _, _, reports = join_pretrained(settings_of(tmp_path, "qwen3-vl", sam), torch.float32, seed=0)
    assert "1 refused (lm_head.weight)" in str(reports[0])


def test_what_is_no_such_model_is_refused(tmp_path, sam):
    published_folder(tmp_path, "qwen3-vl")
    kind, other = language_backbone("qwen3-vl"), language_backbone("qwen2.5-vl")
    with pytest.raises(CheckpointError, match="model_type is 'qwen3_vl', but --language_model asks for 'qwen2_5_vl'"):
        other.open_published(tmp_path, None, "7b")
    with pytest.raises(CheckpointError, match="width 128 and 3 layers, but size 8b has 4096 and 36; pass the preset"):
        kind.open_published(tmp_path, None, "8b")
    with pytest.raises(CheckpointError, match="--vision_tower clip is not used"):
        kind.open_published(tmp_path, Path("clip"), "tiny")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "text_config": {"hidden_size": "wide"}}))
    with pytest.raises(CheckpointError, match=r"config\.json: .*copy it again"):
        kind.open_published(tmp_path, None, "tiny")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing; fetch the complete model folder"):
        kind.open_published(tmp_path, None, "tiny")


@pytest.mark.parametrize(
    ("part", "values", "said"),
    [
        (None, {"most_image_tokens": 0}, "least_image_tokens is 16 and most_image_tokens 0"),
        (None, {"least_image_tokens": 500}, "least_image_tokens is 500 and most_image_tokens 64"),
        (None, {"most_image_tokens": "x"}, "most_image_tokens 'x'; they must be whole numbers"),
        ("text_config", {"rope_parameters": {"rope_theta": 5e6, "mrope_section": [1, 1, 1]}}, "sum must be 16"),
        ("vision_config", {"deepstack_visual_indexes": [0, 9]}, r"\(0, 9\); they must be below the encoder's depth, 3"),
    ],
)
def test_parts_that_do_not_fit_are_refused(part, values, said):
    kind = language_backbone("qwen3-vl")
    config = kind.preset("tiny", 300).to_dict()
    (config if part is None else config[part]).update(values)
    with pytest.raises(ValueError, match=said):
        kind.read_config(config)


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("text_config", {"num_key_value_heads": 4}),
        ("text_config", {"rope_parameters": {"rope_theta": 1e6, "mrope_section": [6, 5, 5]}}),
        ("vision_config", {"deepstack_visual_indexes": [0, 2]}),
    ],
)
def test_what_no_shape_tells_must_be_that_of_the_size(tmp_path, part, values):
    published_folder(tmp_path, "qwen3-vl")
    config = json.loads((tmp_path / "config.json").read_text())
    config[part].update(values)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"{next(iter(values))} of {part} is .*, but size tiny has"):
        language_backbone("qwen3-vl").open_published(tmp_path, None, "tiny")


@pytest.mark.parametrize("name", ["qwen3-vl", "qwen2.5-vl"])
def test_dtypes_of_published_files_are_not_those_of_the_model(tmp_path, sam, name):
    published_folder(tmp_path / "published", name)
    file = tmp_path / "published" / "config.json"
    config = json.loads(file.read_text())
    config["text_config"]["dtype"] = config["vision_config"]["dtype"] = config["dtype"] = "bfloat16"
    file.write_text(json.dumps(config))
    model, registry, _ = join_pretrained(settings_of(tmp_path / "published", name, sam), torch.float32, seed=0)
    save_model(model, registry, tmp_path / "model")
    for dtype in ("fp32", "bf16", "auto"):
        again, _ = load_model(tmp_path / "model", dtype=dtype)
        assert {p.dtype for p in again.parameters()} == {torch.bfloat16 if dtype == "bf16" else torch.float32}
        batch = make_batch(again, registry, [make_sample(0)]).to("cpu", next(again.parameters()).dtype)
        assert torch.isfinite(again(batch).logits).all()
