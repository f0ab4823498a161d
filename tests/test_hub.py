"""The hub: what is fetched is said, resumed and checked; a model goes up whole and comes back the same."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from anchorseg import AnchorSegModel, AnchorSegPredictor, load_model, push_to_hub
from anchorseg.weights import published
from anchorseg.weights.folder import save_model
from anchorseg.weights.hub import push_folder
from scripts import download, needs
from tests.conftest import make_model
from tests.hub_server import Hub
from utils import hub as own_hub
from utils.errors import CheckpointError, OutputError, OutputExistsError, SettingsError
from utils.run_lock import run_lock

ROOT = Path(__file__).parents[1]
LLAVA = "llava-hf/llava-1.5-7b-hf"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = Hub()
    for name, value in {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    own_hub._announce.cache_clear()
    yield server
    server.close()


def small_llava():
    rng = np.random.default_rng(0)
    return {"config.json": b'{"model_type": "llava"}', "model-00001-of-00001.safetensors": rng.bytes(200_000),
            "tf_model.h5": b"not needed"}  # fmt: skip


@pytest.fixture
def llava(hub):
    """LLaVA's repository, and SAM's file at an address of the same server."""
    hub.files[LLAVA, "main"] = small_llava()
    return hub.files[LLAVA, "main"]


@pytest.fixture
def sam(hub, monkeypatch):
    content = b"sam" * 50_000
    hub.uploaded["sam_vit_h_4b8939.pth"] = content
    small = dataclasses.replace(
        published.SAM, url=f"{hub.url}/files/sam_vit_h_4b8939.pth", size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )  # fmt: skip
    monkeypatch.setitem(needs.MASKS, "sam", small)
    return content


def run(*arguments, **environment):
    """The program with no network but what HF_ENDPOINT names."""
    return subprocess.run(
        [sys.executable, "-m", "scripts.download", *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_nothing_is_fetched_without_being_asked_for(hub, llava, tmp_path, capsys):
    assert download.main(["--preset", "7b", "--weights_dir", str(tmp_path / "w"), "--dataset_dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "[missing]  llava-1.5-7b-hf, about 14.1 GB" in said and f"hub: {LLAVA}" in said
    assert published.LLAMA in said and "reason_seg/ReasonSeg/train" in said and "--fetch fetches the weights" in said
    assert not hub.asked and not (tmp_path / "w").exists()


def test_every_recipe_and_table_is_listed(capsys):
    for path in sorted((ROOT / "configs").glob("*.json")):
        download.main(["--preset", path.stem])
    for table in needs.TABLES:
        download.main(["--table", str(table)])
    said = capsys.readouterr().out
    in_no_recipe = (*published.ORIGINAL_LLAVA, *published.SAM2, published.SAM3)
    assert all(weights.name in said for weights in published.EVERY if weights not in in_no_recipe)
    with pytest.raises(SettingsError, match=r"There is no preset '8b'"):
        download.main(["--preset", "8b"])
    assert needs.of_table(1).weights == (
        published.LLAVA["7b"], published.SAM, published.LLAVA["13b"], published.RELEASED_REASON_SEG, published.CLIP
    )  # fmt: skip
    assert needs.of_preset("tiny").weights == ()
    assert {name.partition("/")[0] for name in needs.of_table(9).datasets} == set(needs.datasets())


def test_what_is_there_is_said(tmp_path, capsys):
    (tmp_path / "reason_seg/ReasonSeg/train").mkdir(parents=True)
    (tmp_path / "sam_vit_h_4b8939.pth").write_bytes(b"x")
    download.main(["--table", "4", "--weights_dir", str(tmp_path), "--dataset_dir", str(tmp_path)])
    said = capsys.readouterr().out
    assert "[there]    reason_seg/ReasonSeg/train" in said and "[there]    sam_vit_h_4b8939.pth" in said
    assert "[missing]  reason_seg/ReasonSeg/val" in said and "[missing]  llava-1.5-7b-hf" in said


def test_weights_are_fetched_checked_and_not_fetched_again(hub, llava, sam, tmp_path, capsys):
    folder = tmp_path / "weights"
    flags = ["--preset", "7b", "--weights_dir", str(folder), "--fetch"]
    assert download.main(flags) == 0
    said = capsys.readouterr().out
    assert "2 of 2 files to fetch, 200,023 bytes" in said and "1 of 1 files to fetch, 150,000 bytes" in said
    assert (folder / "sam_vit_h_4b8939.pth").read_bytes() == sam
    for name in ("config.json", "model-00001-of-00001.safetensors"):
        assert (folder / "llava-1.5-7b-hf" / name).read_bytes() == llava[name]
    there = {path.name for path in folder.rglob("*") if path.is_file()} - {".lock"}
    assert there == {*llava, "sam_vit_h_4b8939.pth"} - {"tf_model.h5"}
    before = len(hub.downloads(".safetensors"))
    assert download.main(flags) == 0
    assert "0 of 2 files to fetch, 0 bytes" in capsys.readouterr().out
    assert len(hub.downloads(".safetensors")) == before


def test_a_broken_transfer_goes_on_where_it_broke(hub, llava, tmp_path):
    shard = "model-00001-of-00001.safetensors"
    llava[shard] = np.random.default_rng(1).bytes(24_000_000)  # the client takes 10 MiB at a time
    hub.breaks[shard] = [22_000_000, "503"]  # the connection drops; at the client's own next try the server is gone
    flags = ["--preset", "7b", "--weights", "llava-1.5-7b-hf", "--weights_dir", str(tmp_path), "--fetch"]
    first = run(*flags, HF_ENDPOINT=hub.url)
    assert first.returncode == 2 and "Traceback" not in first.stderr
    last = first.stderr.strip().splitlines()[-1]
    assert "could not be fetched" in last and "the same command goes on from where it broke" in last
    (part,) = (tmp_path / "llava-1.5-7b-hf").glob(".*.part")
    have = part.stat().st_size
    assert 10_000_000 < have <= 22_000_000
    second = run(*flags, HF_ENDPOINT=hub.url)
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "llava-1.5-7b-hf" / shard).read_bytes() == llava[shard]
    assert hub.downloads(shard)[-1][1] == f"bytes={have}-"
    assert not list(tmp_path.rglob("*.part"))


def test_a_server_that_drops_the_connection_once_is_asked_for_the_rest(hub, sam, llava, tmp_path):
    hub.breaks["sam_vit_h_4b8939.pth"] = [60_000]  # nothing of it reaches the disk
    download.main(["--preset", "7b", "--weights", "sam_vit_h_4b8939.pth", "--weights_dir", str(tmp_path), "--fetch"])
    assert (tmp_path / "sam_vit_h_4b8939.pth").read_bytes() == sam
    assert len(hub.downloads("sam_vit_h_4b8939.pth")) == 2


@pytest.mark.parametrize("name", ["config.json", "model-00001-of-00001.safetensors", "sam_vit_h_4b8939.pth"])
def test_a_wrong_digest_is_refused(hub, llava, sam, tmp_path, name):
    content = llava.get(name, sam)
    hub.lies[name] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(CheckpointError, match=rf"{name} has the \w+ digest \w+, but \w+ is published; it was not kept"):
        download.main(["--preset", "7b", "--weights_dir", str(tmp_path), "--fetch"])
    assert name not in {path.name for path in tmp_path.rglob("*")} and not list(tmp_path.rglob(f".{name}*"))


def test_another_file_is_not_overwritten(hub, llava, sam, tmp_path):
    (tmp_path / "llava-1.5-7b-hf").mkdir()
    (tmp_path / "llava-1.5-7b-hf/config.json").write_text("{}")
    with pytest.raises(OutputExistsError, match=r"config.json is there and is not the file of .*nothing is overwr"):
        download.main(["--preset", "7b", "--weights_dir", str(tmp_path), "--fetch"])


def test_one_process_fetches_at_a_time(hub, llava, sam, tmp_path):
    with run_lock(tmp_path), pytest.raises(OutputExistsError, match=r"is in use by process .* another --weights_dir"):
        download.main(["--preset", "7b", "--weights_dir", str(tmp_path), "--fetch"])


def test_more_than_the_disk_holds_is_not_begun(hub, llava, sam, tmp_path, monkeypatch):
    monkeypatch.setitem(needs.MASKS, "sam", dataclasses.replace(needs.MASKS["sam"], size=10**18))
    with pytest.raises(SettingsError, match=r"bytes free, but 1,000,000,000,000,200,023 are needed"):
        download.main(["--preset", "7b", "--weights_dir", str(tmp_path), "--fetch"])


def test_what_a_broken_transfer_left_needs_no_room(hub, llava, sam, tmp_path, monkeypatch, capsys):
    have = 100_000
    digest = hashlib.sha256(sam).hexdigest()
    (tmp_path / f".sam_vit_h_4b8939.pth.{digest[:16]}.part").write_bytes(sam[:have])
    usage = dataclasses.make_dataclass("Usage", ["free"])
    flags = ["--preset", "7b", "--weights", "sam_vit_h_4b8939.pth", "--weights_dir", str(tmp_path), "--fetch"]
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage(len(sam) - have - 1))
    with pytest.raises(SettingsError, match="bytes free, but 50,000 are needed"):
        download.main(flags)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage(len(sam) - have))
    download.main(flags)
    assert (tmp_path / "sam_vit_h_4b8939.pth").read_bytes() == sam
    assert "1 of 1 files to fetch, 50,000 bytes" in capsys.readouterr().out


@pytest.mark.parametrize("what", [("--table", "7"), ("--preset", "tiny")])
def test_where_no_weights_are_needed_none_are_said_to_be_there(tmp_path, capsys, what):
    assert download.main([*what, "--weights_dir", str(tmp_path / "w"), "--fetch"]) == 0
    said = capsys.readouterr().out
    assert "no weights are needed" in said and "all weights are in" not in said and not (tmp_path / "w").exists()


def test_names_that_lead_out_of_the_folder_are_refused(hub, llava, tmp_path):
    llava["../../evil.json"] = b"{}"
    with pytest.raises(CheckpointError, match=r"outside of its folder"):
        download.main(["--preset", "7b", "--weights", "llava-1.5-7b-hf", "--weights_dir", str(tmp_path), "--fetch"])


def test_a_revision_is_of_one_repository(hub, llava, sam, tmp_path, capsys):
    hub.files[LLAVA, "old"] = {"config.json": b"{}"}
    flags = ["--weights_dir", str(tmp_path), "--fetch", "--revision"]
    download.main(["--preset", "7b", *flags, "old"])
    assert (tmp_path / "llava-1.5-7b-hf/config.json").read_bytes() == b"{}"
    assert hub.commit(LLAVA, "old") in capsys.readouterr().out
    with pytest.raises(CheckpointError, match=r"llava-1.5-7b-hf could not be read on the hub: it has no such revision"):
        download.main(["--preset", "7b", *flags, "new"])
    with pytest.raises(SettingsError, match=r"--revision old is of one repository, but the list has llava-1.5-7b-hf, "):
        download.main(["--table", "1", *flags, "old"])
    with pytest.raises(SettingsError, match=r"--weights sam is not on the list; allowed: llava-1.5-7b-hf, sam_vit_h"):
        download.main(["--preset", "7b", "--weights", "sam"])


@pytest.mark.parametrize(
    ("environment", "reason"),
    [({"HF_ENDPOINT": "http://127.0.0.1:9"}, "no answer from"), ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE")],
)
def test_no_network_is_one_sentence(tmp_path, environment, reason):
    done = run("--preset", "7b", "--weights_dir", tmp_path, "--fetch", **environment)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ") and reason in done.stderr


@pytest.fixture(scope="module")
def model():
    return make_model()


def test_a_model_goes_up_whole_and_comes_back_the_same(hub, model, capsys):
    address = push_to_hub(*model, "me/segmenter", private=True, token="hf_secret", commit_message="First")
    assert address == f"{hub.url}/me/segmenter/commit/{hub.commit('me/segmenter', 'main')}"
    files = hub.files["me/segmenter", "main"]
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.model", "tokenizer.json",
            "added_tokens.json", "tokenizer_config.json", "README.md"} == set(files)  # fmt: skip
    assert hub.private["me/segmenter"] and hashlib.sha256(files["model.safetensors"]).hexdigest() in hub.uploaded
    assert ModelCard(files["README.md"].decode()).data.pipeline_tag == "image-segmentation"
    files["pytorch_model.bin"], files["official/unused.safetensors"] = b"a pickle", b"more"
    capsys.readouterr()
    loaded, registry = load_model("me/segmenter")
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("me/segmenter: fetched from http://127.0.0.1:")]
    wanted = model[0].state_dict()
    assert loaded.state_dict().keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())
    assert registry.added == model[1].added
    assert not hub.downloads("pytorch_model.bin") and not hub.downloads("unused.safetensors")
    by_commit = AnchorSegModel.from_pretrained("me/segmenter", revision=hub.commit("me/segmenter", "main"))
    assert all(torch.equal(value, wanted[name]) for name, value in by_commit.state_dict().items())


def test_a_folder_goes_to_a_branch_as_it_is(hub, model, tmp_path, monkeypatch):
    save_model(*model, tmp_path / "folder")
    (tmp_path / "folder/README.md").write_text("# My own card\n")
    push_folder(tmp_path / "folder", "me/other", token="hf_secret", revision="trial")
    assert hub.files["me/other", "trial"]["README.md"] == b"# My own card\n" and not hub.files["me/other", "main"]
    loaded, _ = load_model("me/other", revision="trial")
    assert torch.equal(loaded.state_dict()["query_bank.positions"], model[0].state_dict()["query_bank.positions"])
    (tmp_path / "folder/model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no weights"):
        push_folder(tmp_path / "folder", "me/other", token="hf_secret")


def test_what_the_cache_holds_is_read_without_a_network(hub, model, monkeypatch, capsys):
    push_to_hub(*model, "me/segmenter", token="hf_secret")
    load_model("me/segmenter")
    hub.close()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    own_hub._announce.cache_clear()
    AnchorSegPredictor.from_pretrained("me/segmenter")
    assert "me/segmenter: read from the cache" in capsys.readouterr().err


def test_a_local_folder_wins_and_has_no_revisions(hub, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(*model, "me/segmenter")
    load_model("me/segmenter")
    assert not hub.asked
    with pytest.raises(CheckpointError, match=r"revision main is given, but .* is a local folder, which has none"):
        load_model("me/segmenter", revision="main")


def test_unknown_names_and_refusals_are_one_sentence(hub, model):
    with pytest.raises(CheckpointError, match=r"no such repository, or it is private and HF_TOKEN") as refused:
        load_model("nobody/nothing")
    assert "\n" not in str(refused.value)
    push_to_hub(*model, "me/segmenter", token="hf_secret")
    with pytest.raises(CheckpointError, match=r"it has no such revision"):
        AnchorSegModel.from_pretrained("me/segmenter", revision="later")
    with pytest.raises(OutputError, match=r"me/else could not be written on the hub: ") as refused:
        push_to_hub(*model, "me/else", token="hf_wrong")
    assert "hf_wrong" not in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(SettingsError, match=r"'segmenter' is no name on the hub; give OWNER/NAME"):
        push_to_hub(*model, "segmenter")
    with pytest.raises(SettingsError, match=r"use anchorseg.push_to_hub\(model, registry"):
        model[0].push_to_hub("me/segmenter")


def test_a_repository_of_another_model_is_refused(hub):
    hub.files["me/llava", "main"] = {"config.json": json.dumps({"model_type": "llava"}).encode()}
    with pytest.raises(CheckpointError, match=r"is no model folder of this project"):
        load_model("me/llava")
