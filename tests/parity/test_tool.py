"""The tool reports what does not agree, what it cannot read, and what it does not know."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.parity import rules
from tests.parity.__main__ import main
from tests.parity.checks import check_file
from tests.parity.context import Context
from tests.parity.reference import Fixture, Row
from tests.parity.samples import read_members
from utils.errors import UserError

SMALL = "quick_select.npz"


@pytest.fixture
def folder(digest: Path, tmp_path: Path) -> Path:
    """A folder with one small file of arrays and what its model follows from."""
    for path in digest.iterdir():
        if path.name == SMALL or path.suffix != ".npz":
            shutil.copyfile(path, tmp_path / path.name)
    return tmp_path


def rewrite(path: Path, **changed: np.ndarray | None) -> Path:
    members = {**read_members(path), **changed}
    np.savez(path, **{name: array for name, array in members.items() if array is not None})
    return path


def failing(path: Path, context: Context) -> dict[str, str]:
    return {row.array: row.note for row in check_file(path, context) if row.failed}


def test_status_and_last_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.rstrip().splitlines()[-1].endswith(" passed, 0 failed")
    (folder / "more.npz").write_bytes(b"")
    assert main([str(folder)]) == 1
    shown = capsys.readouterr().out
    assert shown.rstrip().splitlines()[-1].endswith(" passed, 1 failed")
    assert "more.npz" in shown and "unknown file" in shown


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(UserError, match="no folder"):
        main(["nowhere"])


def test_an_empty_folder_fails(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 1


def test_a_changed_array(folder: Path, context: Context) -> None:
    changed = np.array(read_members(folder / SMALL)["seg_embeds"])
    changed[1, 2] += 2e-4 * np.abs(changed).max()
    assert list(failing(rewrite(folder / SMALL, seg_embeds=changed), context)) == ["seg_embeds"]


def test_a_missing_array(folder: Path, context: Context) -> None:
    assert "missing" in failing(rewrite(folder / SMALL, seg_embeds=None), context)["seg_embeds"]
    note = failing(rewrite(folder / SMALL, last_hidden=None), context)["-"]
    assert "last_hidden is missing" in note


def test_an_unknown_array(folder: Path, context: Context) -> None:
    assert failing(rewrite(folder / SMALL, more=np.zeros(3)), context) == {"more": "unknown array"}


def test_a_truncated_file(folder: Path, context: Context) -> None:
    path = folder / SMALL
    path.write_bytes(path.read_bytes()[:5000])
    assert "unreadable" in failing(path, context)["-"]


def test_a_damaged_member(folder: Path, context: Context) -> None:
    path = folder / SMALL
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))
    assert "unreadable" in failing(path, context)["-"]


@pytest.mark.parametrize("name", ["state_dict_keys.json", "trainable.json", "collate.json"])
def test_changed_text(folder: Path, context: Context, name: str) -> None:
    path = folder / name
    path.write_text(path.read_text().replace("LATENT6", "LATENT9").replace("lm_head.weight", "lm_head.wait"))
    assert failing(path, context)
    path.write_text(path.read_text()[:-40])
    assert "unreadable" in failing(path, context)["-"]


def test_a_file_whose_inputs_are_elsewhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    np.savez(folder / "train_steps.npz", columns=["loss"], losses=np.zeros((1, 1)), grad_norm_before_clip=np.zeros(1))
    alone = Context(folder, tmp_path_factory.mktemp("alone"))
    assert "forward_train.npz, which is missing" in failing(folder / "train_steps.npz", alone)["-"]
    (folder / "config.json").unlink()
    alone = Context(folder, tmp_path_factory.mktemp("without"))
    assert "config.json is missing" in failing(folder / "train_steps.npz", alone)["-"]


def one_row(folder: Path, expected: np.ndarray, found: np.ndarray) -> Row:
    np.savez(folder / "one.npz", a=expected)
    fixture = Fixture(folder / "one.npz")
    fixture.check("a", found)
    return fixture.finish()[0]


def test_comparison(tmp_path: Path) -> None:
    ones = np.ones((2, 3), dtype=np.float32)
    assert not one_row(tmp_path, ones, ones + 9e-5).failed
    assert one_row(tmp_path, ones, ones + 2e-4).failed
    assert one_row(tmp_path, ones, ones * np.nan).failed
    assert one_row(tmp_path, ones, ones[:1]).failed
    assert one_row(tmp_path, np.arange(9), np.arange(9) + (np.arange(9) == 3)).failed
    assert not one_row(tmp_path, np.zeros((0, 4)), np.zeros((0, 4))).failed


@pytest.mark.parametrize("name", sorted(rules.RULES))
def test_rules_give_what_the_digest_samples(digest: Path, name: str) -> None:
    file, array = name.split("/")
    fixture = Fixture(digest / f"{file}.npz")
    fixture.input(array)
    assert [row.status for row in fixture.finish() if row.array == array] == ["pass"]


def test_weight_rule() -> None:
    norm, bias = rules.tensor("model.norm.weight", (4000,)), rules.tensor("model.norm.bias", (4000,))
    assert norm.mean() == pytest.approx(1, abs=0.01) and bias.std() == pytest.approx(0.05, abs=0.005)
    assert rules.tensor("a.weight", (30, 100)).std() == pytest.approx(0.1, abs=0.01)
    assert not rules.tensor("model.ppm._layer_gate_W_similarity", (33, 8)).any()
