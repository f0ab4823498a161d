"""A model folder that anybody may have made: what is wrong with it is named, and nothing in it is executed."""

import copy
import json
import os
import pickle
import shutil
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file

from anchorseg import AnchorSegPredictor
from anchorseg.training.build import is_anchorseg_folder
from anchorseg.weights.folder import load_model, save_model
from anchorseg.weights.official import export
from tests.conftest import make_model
from utils.errors import CheckpointError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save_model(*make_model(), folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def edit(folder, change):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def put(*keys, value):
    def change(values):
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = value

    return change


def drop(*keys):
    def change(values):
        for key in keys[:-1]:
            values = values[key]
        del values[keys[-1]]

    return change


TEXT = ("language_config", "text_config")
CONFIGURATIONS = {
    "an unknown value of a named option": (put("method", "padding_attention", value="none"), "one of zero, plain"),
    "a number as text": (put("method", "num_latents", value="7"), "num_latents is '7'; it must be a whole number"),
    "an unknown key": (put("method", "token_sigm", value=7.0), "is not a setting; did you mean token_sigma"),
    "an empty method": (put("method", value={}), "method is {}, but must be an object"),
    "no method": (drop("method"), "method is None, but must be an object"),
    "a method that does not say K": (drop("method", "num_latents"), "method does not say num_latents"),
    "another model": (put("model_type", value="llava"), "no model folder of this project: its model_type"),
    "no model": (drop("model_type"), "its model_type is None"),
    "kernels from elsewhere": (
        put(*TEXT, "attn_implementation", value="someone/kernels"),
        "must not choose what code is loaded",
    ),
    "kernels at the top": (put("_attn_implementation", value="a/b"), "must not choose what code is loaded"),
    "code from elsewhere": (put("auto_map", value={"AutoModel": "x.Y"}), "must not choose what code is loaded"),
    "a width beyond all": (put(*TEXT, "hidden_size", value=10**12), "larger than any size"),
    "layers beyond all": (put(*TEXT, "num_hidden_layers", value=10**6), "num_hidden_layers is"),
    "no layers": (put("mask_config", "encoder_depth", value=0), "encoder_depth is 0; allowed: 1 to 1000"),
    "heads that do not divide": (put(*TEXT, "num_attention_heads", value=3), "config.json: "),
    "a patch of nothing": (put("mask_config", "patch_size", value=0), "sam.patch_size is 0; it must be at least 1"),
    "attention of no layer": (put("mask_config", "global_attention", value=[9]), r"is \(9,\); layers are 0 to 1"),
    "another width": (put("mask_config", "prompt_width", value=32), "of another shape"),
    "another depth": (put(*TEXT, "num_hidden_layers", value=3), "missing: .*layers.2"),
    "a type that is none": (put("dtype", value=True), "dtype is True; allowed: float32, bfloat16, float16"),
    "an id as text": (put("token_ids", "segment", value="1000"), "segment is '1000'"),
    "another id": (put("token_ids", "segment", value=1001), "the tokenizer gives the ids"),
    "two equal tokens": (put("tokens", "reject", value="<SEG>"), "must differ from each other"),
    "fewer tokens than latents": (put("tokens", "reasoning", value=["<REAS_1>"]), "names 1 reasoning tokens"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_a_configuration_that_is_wrong_is_refused_before_anything_is_built(folder, kind):
    change, message = CONFIGURATIONS[kind]
    edit(folder, change)
    with pytest.raises(CheckpointError, match=message) as refused:
        load_model(folder)
    assert "\n" not in str(refused.value)


def test_a_folder_from_before_there_was_a_choice_of_backbones_is_read(folder):
    wanted = load_model(folder)[0].state_dict()

    def rename(values):
        values["llava_config"], values["sam"] = values.pop("language_config"), values.pop("mask_config")
        for name in ("language_model", "mask_model", "head", "anchorseg_version"):
            del values[name]

    edit(folder, rename)
    found = load_model(folder)[0]
    assert found.config.mask_model == "sam"
    assert all(torch.equal(value, wanted[name]) for name, value in found.state_dict().items())


CONTENT = {
    "empty": b"",
    "zero bytes": b"\0" * 100,
    "a web page": b"<!DOCTYPE html><html>Entry not found</html>",
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "cut": None,
    "nested": b"[" * 100_000,
    "not a number": b'{"model_type": "anchorseg", "x": NaN}',
    "a long number": b'{"x": ' + b"9" * 5000 + b"}",
    "a list": b"[1]",
    "half a surrogate": b'{"model_type": "\\ud800"}',
}
FILES = ("config.json", "model.safetensors", "tokenizer.model", "added_tokens.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", [*CONTENT, "missing", "a folder", "a pipe"])
def test_a_file_that_is_no_such_file_is_refused_by_name(folder, name, kind):
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind != "missing":
        path.write_bytes(content[: len(content) // 2] if CONTENT[kind] is None else CONTENT[kind])
    with pytest.raises(CheckpointError) as refused:
        load_model(folder)
    words = "holds no weights" if (name, kind) == ("model.safetensors", "missing") else name
    if (name, kind) not in {("model.safetensors", "a folder"), ("model.safetensors", "a pipe")}:
        assert words in str(refused.value)
    assert "weights_only" not in str(refused.value) and "\n" not in str(refused.value)


def change_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("lm_head.weight"))
    tensors[name] = change(tensors[name])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return name


def test_weights_that_are_no_numbers_are_refused(folder):
    def spoil(tensor):
        tensor[3, 5] = float("nan")
        return tensor

    change_weights(folder, spoil)
    with pytest.raises(CheckpointError, match=r"1 tensor\(s\) not finite: llava.network.lm_head.weight"):
        load_model(folder)


def test_infinite_weights_are_refused(folder):
    change_weights(folder, lambda tensor: tensor.fill_(float("-inf")))
    with pytest.raises(CheckpointError, match=r"1 tensor\(s\) not finite"):
        load_model(folder)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_weights_of_whole_numbers_are_refused(folder, dtype):
    change_weights(folder, lambda tensor: tensor.to(dtype))
    with pytest.raises(CheckpointError, match=r"1 tensor\(s\) of whole numbers: .*lm_head"):
        load_model(folder)


class Evil:
    """Pickles as the call of a command."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("place", ["a tensor's", "the table's"])
def test_code_in_weights_is_never_run(folder, tmp_path, form, place):
    marker = tmp_path / "marker"
    tensors = load_file(folder / "model.safetensors")
    content = {**tensors, "evil": Evil(marker)} if place == "a tensor's" else Evil(marker)
    (folder / "model.safetensors").unlink()
    file = folder / "pytorch_model.bin"
    if form == "pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    for load in (load_model, AnchorSegPredictor.from_pretrained, torch_weights):
        with pytest.raises(CheckpointError) as refused:
            load(folder)
        assert "weights_only" not in str(refused.value)
    assert not marker.exists()


def torch_weights(folder):
    export(folder, folder.parent / "published")


def test_an_index_that_leads_out_of_the_folder_is_refused(folder):
    weights = folder / "model.safetensors"
    names = list(load_file(weights))
    shutil.move(weights, folder.parent / "elsewhere.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../elsewhere.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"which is no name of a file"):
        load_model(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "<html>"])
def test_a_damaged_index_is_refused_by_name(folder, content):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json: .*fetch it again"):
        load_model(folder)


def test_the_published_layout_is_told_from_ours(folder):
    published = folder.parent / "published"
    published.mkdir()
    values = {"model_type": "llava", "train_mask_decoder": True, "out_dim": 256, "hidden_size": 4096}
    (published / "config.json").write_text(json.dumps(values))
    with pytest.raises(
        CheckpointError, match=r"in the published layout; convert it first: python -m scripts.convert_chec"
    ):
        AnchorSegPredictor.from_pretrained(published)


def test_an_adapter_is_refused(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"a LoRA adapter; give the folder that merge_lora_weights.py wrote"):
        load_model(folder)


def test_a_folder_is_known_by_its_configuration(folder, tmp_path):
    assert is_anchorseg_folder(str(folder)) and not is_anchorseg_folder(None)
    assert not is_anchorseg_folder(str(tmp_path)) and not is_anchorseg_folder("llava-hf/llava-1.5-7b-hf")
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        is_anchorseg_folder(str(folder))


def test_colleagues_can_read_what_is_written(tmp_path):
    before = os.umask(0o022)
    try:
        save_model(*make_model(), tmp_path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o644}


def test_a_whole_folder_loads_as_it_was(saved):
    model, registry = load_model(saved)
    wanted, _ = make_model()
    assert all(torch.equal(value, wanted.state_dict()[name]) for name, value in model.state_dict().items())
    assert copy.deepcopy(model.config).token_ids["segment"] == registry.segment_id
