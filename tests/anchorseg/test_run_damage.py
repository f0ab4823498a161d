"""A run folder that anybody may have made: nothing in it is executed, and damage is named, whatever it is."""

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from anchorseg.training import checkpoint_files
from anchorseg.training.checkpoints import Checkpoints, read_client_state, read_pointer
from anchorseg.training.merging import load_trained
from anchorseg.training.settings import TrainSettings
from tests.test_train_ds import ROOT, flags, run, scenes  # noqa: F401
from utils.errors import CheckpointError, OutputExistsError, SettingsError, UserError
from utils.run_folder import RunFolder
from utils.run_lock import run_lock
from utils.settings import names_that_may_change

TAG = "step_00000002"


@pytest.fixture(scope="module")
def made(scenes, tmp_path_factory) -> Path:  # noqa: F811
    runs = tmp_path_factory.mktemp("runs")
    run(flags(scenes, runs, "run", "--eval_interval", "2", "--steps_per_epoch", "2"))
    return runs / "run"


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


class Evil:
    """Pickles as the call of a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints" / TAG).glob("*.pt"))


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "tensor subclass", "inside the state"])
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("checksums", ["absent", "forged"])
def test_code_in_a_checkpoint_is_never_run(folder, tmp_path, form, number, checksums):
    marker, path = tmp_path / "marker", files(folder)[number]
    whole = torch.load(path, weights_only=False)
    contents = {"inside the state": {**whole, "identity": Evil(marker)}, "tensor subclass": {"module": [Evil(marker)]}}
    content = contents.get(form, Evil(marker))
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    (path.parent / checkpoint_files.CHECKSUMS).unlink()
    if checksums == "forged":
        checkpoint_files.write_checksums(path.parent)
    for read in (lambda: read_client_state(path.parent), lambda: load_trained(folder, "latest")):
        with pytest.raises(CheckpointError, match=rf"{path.name}: .*; it is not opened"):
            read()
    assert not marker.exists()


def test_code_is_not_run_by_the_commands(folder, scenes, tmp_path):  # noqa: F811
    marker = tmp_path / "marker"
    torch.save({"module": Evil(marker)}, files(folder)[-1])
    (folder / "checkpoints" / TAG / checkpoint_files.CHECKSUMS).unlink()
    merge = ["merge_lora_weights.py", "--run", str(folder), "--save_path", str(tmp_path / "model")]
    resume = [*flags(scenes, tmp_path, "run", "--eval_interval", "2", "--steps_per_epoch", "2"), "--resume"]
    for arguments in (merge, resume):
        done = run(arguments, check=False)
        assert done.returncode == 2 and "it is not opened" in done.stderr and "Traceback" not in done.stderr
    assert not marker.exists() and not (tmp_path / "model").exists()


def test_deepspeed_itself_reads_plain_data_alone(folder, tmp_path):
    marker = tmp_path / "marker"
    torch.save(Evil(marker), tmp_path / "evil.pt")
    with checkpoint_files.plain_data_only(), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "evil.pt", weights_only=False)
    assert not marker.exists() and "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.mark.parametrize("seed", range(24))
def test_a_flipped_bit_anywhere_is_found(folder, seed):
    rng = random.Random(seed)
    path = files(folder)[seed % 2]
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"its checksum does not fit; no other checkpoint of the run is whole"):
        load_trained(folder, "latest")


def test_the_other_checkpoint_is_named_if_it_is_whole(folder):
    other = folder / "checkpoints" / "step_00000001"
    shutil.copytree(folder / "checkpoints" / TAG, other)
    (folder / "checkpoints" / "best").write_text(other.name)
    files(folder)[0].write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"has 0 bytes instead of \d+; .* step_00000001, best, is whole"):
        load_trained(folder, "latest")


def test_a_checkpoint_without_checksums_is_read(folder):
    (folder / "checkpoints" / TAG / checkpoint_files.CHECKSUMS).unlink()
    assert read_client_state(folder / "checkpoints" / TAG)["step"] == 2


def replaced(path: Path, what: str) -> None:
    path.unlink()
    if what == "a folder":
        path.mkdir()
    elif what == "a pipe":
        os.mkfifo(path)
    elif what == "a link to itself":
        path.symlink_to(path.name)


BYTES = [
    b"",
    b"\0" * 50,
    b"<!DOCTYPE html>",
    b"{",
    b"[1]",
    b"\xff\xfe\xfd",
    b"null",
    b"version https://git-lfs.github.com/",
]
KINDS = ["missing", "a folder", "a pipe", "a link to itself"]
NAMES = ["config.json", "checkpoints/latest", f"checkpoints/{TAG}/checksums.json", "a state", "an optimizer's state"]


def located(folder: Path, name: str) -> Path:
    return {"a state": files(folder)[1], "an optimizer's state": files(folder)[0]}.get(name, folder / name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", [*BYTES, *KINDS], ids=repr)
def test_damaged_files_end_merging_in_a_sentence(folder, name, damage):
    path = located(folder, name)
    replaced(path, damage) if isinstance(damage, str) else path.write_bytes(damage)
    if name.endswith("checksums.json") and damage == "missing":
        load_trained(folder, "latest")
        return
    with pytest.raises(UserError) as caught:
        load_trained(folder, "latest")
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


POINTERS = ["", "step_2", "../../elsewhere", "/etc", "step_00000002/..", "latest", "\0", "ü", "x" * 9999]


@pytest.mark.parametrize("text", POINTERS)
def test_a_pointer_names_a_folder_beside_it(folder, text):
    (folder / "checkpoints" / "latest").write_text(text)
    with pytest.raises(CheckpointError, match=r"must name a folder such as .*; the folder holds step_00000002"):
        read_pointer(folder / "checkpoints", "latest")


@pytest.mark.parametrize("name", ["environment.json", "config.json", "metrics.jsonl"])
@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\0", b"[1]\n[2]\n", b"null\n{}\n"], ids=repr)
def test_damaged_records_do_not_stop_a_start_or_are_named(folder, name, damage):
    (folder / name).write_bytes(damage)
    try:
        with RunFolder(folder, config={"a": 1}, resume_step=2) as opened:
            opened.log(3, {"x": 1.0})
    except CheckpointError as error:
        assert name == "metrics.jsonl" and "is not a JSON object" in str(error)
        return
    assert json.loads((folder / "config.json").read_text()) == {"a": 1}
    assert name == "metrics.jsonl" or (folder / name.replace(".json", ".1.json")).read_bytes() == damage


def test_two_runs_do_not_share_a_folder(scenes, tmp_path):  # noqa: F811
    with run_lock(tmp_path / "run"):
        second = run_lock(tmp_path / "run")
        with pytest.raises(OutputExistsError, match=rf"is in use by process {os.getpid()} on "), second:
            pass
        done = run(flags(scenes, tmp_path, "run"), check=False)
        assert done.returncode == 2 and "is in use by process" in done.stderr and "Traceback" not in done.stderr
    with run_lock(tmp_path / "run"):
        pass


def test_a_run_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be made or written"), run_lock(tmp_path / "file" / "run"):
        pass


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("lora_alpha", "256"), pytest.param("lora_dropout", "0.3", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_what_must_agree_is_refused(folder, scenes, flag, value):  # noqa: F811
    arguments = [*flags(scenes, folder.parent, "run", "--eval_interval", "2", "--steps_per_epoch", "4"), "--resume"]
    if flag in ("lora_dropout",):
        arguments[arguments.index("--lora_dropout") + 1] = value
    else:
        arguments += [f"--{flag}", value]
    done = _main(arguments[1:])
    assert done.returncode == 2 and f"was written with {flag} " in done.stderr, done.stderr[-2000:]


def test_of_every_setting_it_is_decided_whether_it_must_agree(tmp_path):
    free = names_that_may_change(TrainSettings)

    names = {field.name for field in fields(TrainSettings)}
    assert names >= free
    must = names - free
    assert must >= {"lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "precision", "beta2", "weight_decay"}
    assert must >= {"gradient_clipping", "model_max_length", "token_sigma", "num_latents", "seed", "batch_size", "size"}
    here = Checkpoints(tmp_path, dict.fromkeys(must, 1), {})
    for name in must:
        with pytest.raises(CheckpointError, match=rf"was written with {name} 2, but this run has 1; pass --{name} 2"):
            here.check_identity(tmp_path, {**dict.fromkeys(must, 1), name: 2})
    here.check_identity(tmp_path, dict.fromkeys(must, 1))


def _main(arguments: list[str]) -> subprocess.CompletedProcess:
    return run(["train_ds.py", *arguments], check=False)


def test_what_may_change_is_said(folder, scenes):  # noqa: F811
    arguments = flags(scenes, folder.parent, "run", "--eval_interval", "2", "--steps_per_epoch", "3")
    done = run([*arguments, "--resume", "--lr", "1e-5", "--workers", "1"])
    assert "since the checkpoint lr was" in done.stdout and "and is 1e-05" in done.stdout
    assert "since the checkpoint workers was 0 and is 1" in done.stdout


FULL = """
import resource, signal, sys
import train_ds
from utils.errors import exit_on_error
from anchorseg.training.trainer import Trainer
start = Trainer.start
def limited(self):
    progress = start(self)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    return progress
Trainer.start = limited
with exit_on_error():
    train_ds.main(sys.argv[1:])
"""


def test_a_full_disk_ends_in_a_sentence_and_the_previous_checkpoint_is_whole(folder, scenes):  # noqa: F811
    arguments = [*flags(scenes, folder.parent, "run", "--eval_interval", "2", "--steps_per_epoch", "4"), "--resume"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FULL, *arguments[1:]], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-3000:]
    assert "step_00000004 could not be written" in done.stderr
    assert "the previous checkpoint, latest, is whole" in done.stderr
    assert read_pointer(folder / "checkpoints", "latest").name == TAG
    checkpoint_files.check(folder / "checkpoints" / TAG)
    run([*arguments])
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert read_pointer(folder / "checkpoints", "latest").name == "step_00000004"
    assert not any(name.endswith(".tmp") for name in names)


@pytest.mark.slow
def test_leftovers_are_removed_at_the_next_start(folder, scenes):  # noqa: F811
    (folder / "checkpoints" / "step_00000099").mkdir()
    (folder / "checkpoints" / ".latest.0123.tmp").write_text("half")
    arguments = flags(scenes, folder.parent, "run", "--eval_interval", "2", "--steps_per_epoch", "2")
    run([*arguments, "--resume"])
    left = {path.name for path in (folder / "checkpoints").iterdir()}
    assert left >= {"best", "latest", TAG, "validated.json"}
    assert not left & {"step_00000099", ".latest.0123.tmp"}


def test_other_frozen_weights_are_not_resumed(made):
    from anchorseg.training.trainable import frozen_weights
    from tests.conftest import make_model

    model, _ = make_model()
    model.requires_grad_(False)
    before = frozen_weights(model)
    assert frozen_weights(make_model()[0].requires_grad_(False)) == before
    with torch.no_grad():
        model.llava.lm_head.weight[0, 0] += 1
    assert frozen_weights(model) != before


def test_a_folder_is_merged_whole_or_not_at_all(folder, tmp_path):
    program = (
        "import sys, merge_lora_weights as m\nfrom utils.errors import exit_on_error\n"
        "m.TOLERANCE = dict.fromkeys(m.TOLERANCE, -1.0)\nwith exit_on_error():\n    m.main(sys.argv[1:])\n"
    )
    target = tmp_path / "model"
    done = subprocess.run(
        [sys.executable, "-c", program, "--run", str(folder), "--save_path", str(target)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 2 and "merged and unmerged differ by" in done.stderr, done.stderr[-2000:]
    assert not target.exists() and not list(tmp_path.glob(".model*"))


def test_a_zero_stage_pickled_by_getattr_is_read_and_no_other_getattr_is(tmp_path):
    """Python 3.11.2 writes members of an enumeration as `getattr(class, name)`."""
    from deepspeed.runtime.zero.config import ZeroStageEnum

    from anchorseg.training.checkpoint_files import load_plain

    class Member:
        def __init__(self, kind, name):
            self.found = (kind, name)

        def __reduce__(self):
            return getattr, self.found

    torch.save({"zero_stage": Member(ZeroStageEnum, "gradients")}, tmp_path / "stage.pt")
    assert load_plain(tmp_path / "stage.pt")["zero_stage"] is ZeroStageEnum.gradients
    torch.save({"zero_stage": Member(torch.Tensor, "numpy")}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="not opened"):
        load_plain(tmp_path / "other.pt")
