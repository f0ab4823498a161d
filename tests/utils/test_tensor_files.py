"""Weight files: every format gives the same tensors; what is damaged, absent or dangerous is refused by name."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from utils.errors import CheckpointError
from utils.loading import LoadReport, local_folder, match
from utils.tensor_files import TensorFiles

TENSORS = {"a.0.weight": torch.arange(6.0).view(2, 3), "a.1.weight": torch.ones(2, 3), "b": torch.tensor(True)}


def write_sharded(folder, suffix):
    save = (lambda value, path: save_file(value, path)) if suffix == "safetensors" else torch.save
    name = "model" if suffix == "safetensors" else "pytorch_model"
    files = {f"{name}-00001-of-00002.{suffix}": ["a.0.weight"], f"{name}-00002-of-00002.{suffix}": ["a.1.weight", "b"]}
    for file, names in files.items():
        save({key: TENSORS[key] for key in names}, folder / file)
    index = {"weight_map": {key: file for file, names in files.items() for key in names}}
    (folder / f"{name}.{suffix}.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
@pytest.mark.parametrize("sharded", [True, False])
def test_every_format_gives_the_same_tensors(tmp_path, suffix, sharded):
    if sharded:
        write_sharded(tmp_path, suffix)
    elif suffix == "bin":
        torch.save(TENSORS, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    else:
        save_file(TENSORS, tmp_path / "model.safetensors")
    files = TensorFiles(tmp_path)
    assert sorted(files) == sorted(TENSORS) and len(files.shards) == (2 if sharded else 1)
    for name, value in TENSORS.items():
        assert torch.equal(files[name], value) and files.shape(name) == value.shape


def test_absent_and_damaged_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no weights; expected one of model.safetensors"):
        TensorFiles(tmp_path)
    for suffix in ("bin", "safetensors"):
        folder = tmp_path / suffix
        folder.mkdir()
        write_sharded(folder, suffix)
        shard = next(folder.glob("*00002-of*"))
        shard.write_bytes(shard.read_bytes()[:-40])
        with pytest.raises(CheckpointError, match=rf"{shard.name} .*(cut short|damaged)"):
            TensorFiles(folder)
        shard.unlink()
        with pytest.raises(CheckpointError, match=rf"names {shard.name}, which is not there"):
            TensorFiles(folder)


def test_an_index_naming_a_tensor_that_is_not_there(tmp_path):
    index = write_sharded(tmp_path, "bin") / "pytorch_model.bin.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {**weight_map, "c": "pytorch_model-00001-of-00002.bin"}}))
    with pytest.raises(CheckpointError, match=r"1 tensor\(s\) that its files do not hold: c"):
        TensorFiles(tmp_path)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Harmful()}, tmp_path / "sam.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"sam.pth is refused: it holds objects other than tensors"):
        TensorFiles(tmp_path / "sam.pth")
    assert not (tmp_path / "harm").exists()
    torch.save({"model": TENSORS}, tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match=r"not a table of tensors by name"):
        TensorFiles(tmp_path / "sam.pth")


def test_matching_names_everything_that_does_not_fit(tmp_path):
    files = TensorFiles(write_sharded(tmp_path, "bin"))
    shapes = {"a.0.weight": torch.Size((2, 3)), "a.1.weight": torch.Size((2, 4)), "c": torch.Size(())}
    with pytest.raises(CheckpointError) as error:
        match(shapes, files, lambda name: name)
    for part in (r"missing: c;", "another shape: a.1.weight (2, 3) instead of (2, 4);", "unknown: b."):
        assert part in str(error.value)
    del shapes["a.1.weight"]
    report = match(shapes, files, lambda name: name, unused=r"^b$|^a\.1", new=("c",))
    assert report == LoadReport(
        source=str(tmp_path), loaded={"a.0.weight": "a.0.weight"}, new=("c",), refused=("a.1.weight", "b")
    )
    assert str(report) == f"{tmp_path}: 1 tensors loaded, 1 new (c), 2 refused (a.*.weight, b)"


def test_a_folder_that_is_neither_local_nor_on_the_hub(monkeypatch):
    with pytest.raises(CheckpointError, match=r"--version no such does not exist; give a local folder or a name"):
        local_folder("no such", "--version")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"--version owner/name is no local folder, and the hub could not"):
        local_folder("owner/name", "--version")
