"""The ablations: what is left to do, what may share a folder, and the table of made-up runs."""

import json

import numpy as np
import pytest

from scripts import ablations
from scripts.ablation_report import FULL, ROWS, read_runs, seed_interval, write_report
from utils.errors import DataError, SettingsError, UserError
from utils.files import write_json


def write_run(root, row, seed, ious, ciou=0.5):
    rows = [{"record": f"{number}.json", "iou": iou} for number, iou in enumerate(ious)]
    forced = {"giou": float(np.mean(ious)), "ciou": ciou, "rows": rows}
    folder = root / "runs" / row / f"seed_{seed}"
    folder.mkdir(parents=True)
    write_json(folder / "results.json", {"benchmarks": {"ReasonSeg|test": {"forced": forced}}})


def test_the_table_compares_runs_of_the_same_seeds(tmp_path):
    ious = np.linspace(0.2, 0.8, 40)
    for seed, shift in enumerate((0.0, 0.02, 0.04)):
        write_run(tmp_path, FULL, seed, ious + shift)
        write_run(tmp_path, "lisa", seed, ious + shift - 0.1)
    write_run(tmp_path, "bank_4", 1, ious)
    text = write_report(tmp_path)
    full, bank, lisa = json.loads((tmp_path / "summary.json").read_text())
    assert full["giou"] == pytest.approx(0.52) and full["difference"] == 0
    assert full["giou_interval"] == pytest.approx(
        (0.52 - 4.3027 * 0.02 / 3**0.5, 0.52 + 4.3027 * 0.02 / 3**0.5), abs=1e-4
    )
    assert lisa["difference"] == pytest.approx(-0.1) and lisa["difference_interval"] == pytest.approx((-0.1, -0.1))
    assert bank["seeds"] == [1] and bank["giou_interval"] is None and bank["difference"] == pytest.approx(-0.02)
    assert "| LISA: one token, no prior | 3 | 42.0 ± 5.0 | 50.0 ± 0.0 | -10.0 [-10.0, -10.0] | 61.3 | 62.9 |" in text
    assert text.splitlines()[2].endswith("| 68.3 | 75.9 |")
    assert (tmp_path / "table.md").read_text() == text + "\n" and (tmp_path / "ablations.png").stat().st_size > 2000


def test_without_the_full_method_nothing_is_compared(tmp_path):
    write_run(tmp_path, "lisa", 0, [0.5])
    with pytest.raises(DataError, match="full"):
        read_runs(tmp_path)
    assert seed_interval([0.5]) is None


def test_a_folder_holds_runs_of_one_kind(tmp_path):
    ablations.keep_plan(tmp_path, 300)
    ablations.keep_plan(tmp_path, 300)
    with pytest.raises(SettingsError, match="another folder"):
        ablations.keep_plan(tmp_path, 200)


def test_a_run_that_failed_names_its_log_and_no_further_one_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(ablations.Run, "commands", lambda run: [["-c", "import sys; print('reason'); sys.exit(3)"]])
    runs = [ablations.Run(tmp_path, row, 0, 1) for row in ROWS]
    with pytest.raises(UserError, match=r"exit status 3; see .*log.txt"):
        ablations.finish_all(runs, 1)
    assert len(list((tmp_path / "runs").rglob("log.txt"))) == 1
    assert "reason" in (runs[0].folder / "log.txt").read_text()


@pytest.mark.slow
def test_two_rows_from_the_scenes_to_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablations, "SCENES", {"train": 8, "val": 1, "test": 3})
    arguments = [str(tmp_path), "--rows", FULL, "lisa", "--seeds", "1", "--steps", "1"]
    ablations.main(arguments)
    assert "0 of 2 runs are finished" in capsys.readouterr().out
    ablations.main(arguments)
    said = capsys.readouterr().out
    assert "2 of 2 runs are finished" in said and "LISA" in said
