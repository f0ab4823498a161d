"""The report about a data folder: what is there, what is missing and where it comes from, what is malformed."""

import html
import json
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from dataset.browsing import Leafing, draws, folder_name
from dataset.drawn.writer import write_scenes
from dataset.examining import examine, lines
from dataset.readers.folder import DataFolder
from dataset.registry import FAMILIES, datasets, training_sources
from dataset.sample import RejectSlot, TargetSlot
from dataset.source import Expected, FamilyOptions
from scripts.check_data import main
from tests.drawn.layouts import FAMILIES as LAYOUTS
from tests.drawn.layouts import write_layouts
from utils.errors import OutputExistsError, SettingsError


def expected(name: str) -> Expected:
    family, _, dataset = name.partition("/")
    return FAMILIES[family].sets[dataset]


NAMES = [f"{family}/{name}" for family, names in datasets().items() for name in names]
CUSTOM = {"shapes": [{"label": "cup", "points": [[2, 2], [40, 2], [40, 30]]}]}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_layouts(root, families=tuple(LAYOUTS), images=4, seed=0)
    write_scenes(root, counts={"train": 4, "val": 1, "test": 1}, seed=0)
    return root


@pytest.fixture
def check(root, tmp_path_factory, capsys):
    """Exit status, and what was printed."""

    def run(*arguments, folder=root):
        index = tmp_path_factory.getbasetemp() / "index"
        status = main([str(folder), "--index_dir", str(index), *map(str, arguments)])
        return status, capsys.readouterr().out

    return run


def states(report):
    return {
        name: state
        for state, name in re.findall(r"^(ready|val only|missing|broken) +(\S+)", report, flags=re.MULTILINE)
    }


@contextmanager
def hidden(paths):
    """Paths out of the way, those that exist."""
    moved = [(path, path.with_name(path.name + ".hidden")) for path in paths if path.exists()]
    assert moved
    for path, away in moved:
        path.rename(away)
    yield
    for path, away in moved:
        away.rename(path)


def test_everything_that_is_there_can_train(check, tmp_path):
    photo = np.full((48, 64, 3), 200, np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), photo)
    (tmp_path / "a.json").write_text(json.dumps(CUSTOM))
    sheet = tmp_path / "pictures" / "sheet.png"
    status, report = check("--custom_data", tmp_path, "--sheet", sheet)
    assert status == 0 and states(report) == dict.fromkeys([*NAMES, "custom"], "ready")
    assert re.search(r"^ready +sem_seg/ade20k +4 records \(the whole dataset has 20,210\)$", report, re.MULTILINE)
    assert re.search(r"^ready +custom +1 records$", report, re.MULTILINE)
    assert report.endswith("what is there can train\n")
    picture = cv2.imread(str(sheet))
    samples = 3 * len(NAMES) + 1
    assert picture.shape[0] > 250 * (samples // 3) and picture.shape[1] > 1800
    assert (np.abs(picture.astype(int) - (110, 190, 0)) < 3).all(axis=2).sum() > 10_000, "outlines of the truth"


def test_every_dataset_says_what_it_needs():
    assert all(expected(name).source and expected(name).needs for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_thing_needed_is_missed(root, tmp_path, name):
    for need in expected(name).needs:
        with hidden([root / place for place in need.split(" or ")]):
            finding = examine(name, DataFolder(root, tmp_path), FamilyOptions())
            report = list(lines(name, finding, root))
        assert report[0] in (f"missing  {name}", f"val only {name}")
        assert report[1].endswith(f"missing: {need}") and report[-1].endswith(f"from: {expected(name).source}")
    assert expected(name).lacks(root) == []


def test_what_is_missing_does_not_matter_unless_asked_for(root, check):
    with hidden([root / "llava_dataset"]):
        assert check()[0] == 0
        assert check("--dataset", "sem_seg||reason_seg")[0] == 0
        assert check("--dataset", "sem_seg||vqa")[0] == 1


def test_an_empty_folder_cannot_train(check, tmp_path):
    status, report = check(folder=tmp_path)
    assert status == 1 and set(states(report).values()) == {"missing"}
    assert "found: nothing; missing: ade20k/images/training, ade20k/annotations/training" in report


def test_a_mixture_has_the_datasets_of_a_run(root, check):
    with hidden([root / "vlpart" / "paco"]):
        assert check("--dataset", "sem_seg")[0] == 0
        status, report = check("--dataset", "sem_seg", "--sem_seg_data", "ade20k||paco_lvis")
        assert status == 1 and report.endswith("cannot train: sem_seg/paco_lvis\n")
    status, report = check("--dataset", "refer_seg", "--refer_seg_data", "refcoco|val")
    assert status == 0 and states(report)["refer_seg/refcoco|val"] == "ready"
    status, report = check("--dataset", "refer_seg", "--refer_seg_data", "refclef|nowhere")
    assert status == 1 and set(states(report)) == {"refer_seg/refclef|nowhere"}
    assert "it has no split nowhere" in report


def test_explanations_are_needed_unless_switched_off(root, check):
    with hidden([root / "reason_seg" / "ReasonSeg" / "explanatory"]):
        status, report = check("--dataset", "reason_seg")
        assert status == 1 and "switch it off with --explanatory -1" in report
        assert check("--dataset", "reason_seg", "--explanatory", "-1")[0] == 0


def llava(root, folder, bad):
    """A data folder with 300 records, of which some have no image."""
    record = json.loads((root / "llava_dataset" / "llava_instruct_150k.json").read_text())[0]
    records = [{key: value for key, value in record.items() if n >= bad or key != "image"} for n in range(300)]
    (folder / "llava_dataset").mkdir()
    (folder / "llava_dataset" / "llava_instruct_150k.json").write_text(json.dumps(records))
    (folder / "coco").symlink_to(root / "coco")


def test_malformed_records_are_told(root, check, tmp_path):
    llava(root, tmp_path, bad=3)
    status, report = check("--dataset", "vqa", folder=tmp_path)
    assert status == 0 and states(report)["vqa/llava_instruct_150k"] == "ready"
    assert "malformed: 3 known, such as" in report
    assert re.search(r'llava_instruct_150k.json: record 0 has no "image"', report)


def test_too_many_malformed_records_stop_a_run(root, check, tmp_path):
    llava(root, tmp_path, bad=4)
    status, report = check("--dataset", "vqa", folder=tmp_path)
    assert status == 1 and states(report)["vqa/llava_instruct_150k"] == "broken"
    assert "more than 1% of the records are malformed, at which training stops" in report


def test_files_that_cannot_be_read_are_told(root, check, tmp_path):
    shutil.copytree(root / "ade20k", tmp_path / "ade20k")
    for path in (tmp_path / "ade20k" / "images" / "training").iterdir():
        path.write_bytes(b"no image")
    (tmp_path / "llava_dataset").mkdir()
    (tmp_path / "llava_dataset" / "llava_instruct_150k.json").write_text("[")
    (tmp_path / "coco").symlink_to(root / "coco")
    status, report = check(folder=tmp_path)
    found = states(report)
    assert status == 1 and found["sem_seg/ade20k"] == found["vqa/llava_instruct_150k"] == "broken"
    assert "none of the records tried can be used" in report and "malformed: 4 known" in report
    assert "llava_instruct_150k.json: this is not valid JSON" in report
    assert report.endswith("cannot train: sem_seg/ade20k, vqa/llava_instruct_150k\n")


def test_data_to_evaluate_on_alone_are_not_broken(root, check, tmp_path):
    shutil.copytree(root / "reason_seg" / "ReasonSeg", tmp_path / "reason_seg" / "ReasonSeg")
    shutil.rmtree(tmp_path / "reason_seg" / "ReasonSeg" / "train")
    status, report = check(folder=tmp_path)
    assert status == 0 and states(report)["reason_seg/ReasonSeg|train"] == "val only"
    assert "Can be evaluated: ReasonSeg|val, ReasonSeg|test" in report
    assert report.endswith("what is there has nothing to train on, and can be evaluated\n")
    status, report = check("--dataset", "reason_seg", folder=tmp_path)
    assert status == 1 and report.endswith("cannot train: reason_seg/ReasonSeg|train\n")


def test_custom_speaks_of_custom_alone_and_of_every_record(check, tmp_path):
    for number in range(30):
        cv2.imwrite(str(tmp_path / f"{number:02d}.png"), np.full((48, 64, 3), 200, np.uint8))
        outside = {"shapes": [{"label": "cup", "points": [[90, 90], [99, 90], [99, 99]]}]}
        (tmp_path / f"{number:02d}.json").write_text(json.dumps(outside if number == 7 else CUSTOM))
    sheet = tmp_path / "sheet.png"
    status, report = check("--dataset", "custom", "--custom_data", tmp_path, "--sheet", sheet)
    assert status == 1 and states(report) == {"custom": "broken"}
    assert "malformed: 1 known, such as" in report and "07.json" in report
    assert cv2.imread(str(sheet)).shape[1] > 1800, "three samples beside each other"


def test_names_are_checked(check, tmp_path):
    with pytest.raises(SettingsError, match=r"--dataset sem_seg2: no such family; allowed: sem_seg, .*custom"):
        check("--dataset", "vqa||sem_seg2")
    with pytest.raises(SettingsError, match=r"--refer_seg_data refcocoo: no such dataset; allowed: refclef, refcoco"):
        check("--dataset", "refer_seg", "--refer_seg_data", "refcoco||refcocoo")
    with pytest.raises(SettingsError, match="--dataset custom needs --custom_data FOLDER"):
        check("--dataset", "custom")
    assert check("--dataset", "custom", "--custom_data", tmp_path)[0] == 1
    with pytest.raises(FileNotFoundError, match="absent does not exist"):
        check(folder=tmp_path / "absent")


def test_exit_status(root, tmp_path):
    command = [sys.executable, "-m", "scripts.check_data", str(tmp_path), "--index_dir", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout.endswith("what is there cannot train: nothing\n") and not done.stderr


def test_rounded_numbers():
    known = Expected((), "", 4_370, 5)
    assert [known.is_usual(number) for number in (4_364, 4_365, 4_375, 4_376)] == [False, True, True, False]


def local_links(page: Path) -> list[Path]:
    """What a page leads to and shows, as paths."""
    found = re.findall(r'(?:href|src)="([^"]*)"', page.read_text())
    assert not any(address.startswith(("/", "http")) for address in found)
    return [(page.parent / unquote(html.unescape(address))).resolve() for address in found]


def test_samples_of_every_family_can_be_leafed_through(check, root, tmp_path):
    pages = tmp_path / "pages"
    status, report = check("--browse", pages, "--samples", 5, "--samples_per_page", 2, "--explanatory", "-1")
    assert status == 0 and f"pages: {pages / 'index.html'}\n" in report
    to_visit, seen = [pages / "index.html"], set()
    while to_visit:
        path = to_visit.pop()
        if path not in seen:
            seen.add(path)
            to_visit += local_links(path) if path.suffix == ".html" else []
    assert seen == {path for path in pages.rglob("*") if path.is_file()}, "every file is reached by links, and is there"
    for name in NAMES:
        folder = pages / folder_name(name)
        assert len(list(folder.glob("page_*.html"))) == 3 and len(list(folder.glob("*.jpg"))) == 5
        text = html.unescape("".join((folder / f"page_{number}.html").read_text() for number in (1, 2, 3)))
        family, _, dataset = name.partition("/")
        options = FamilyOptions(sets={family: dataset})
        ((_, source),) = training_sources(family, DataFolder(root, tmp_path / "index"), options)
        for sample, _ in draws(name, source, Leafing(samples=5)):
            turns = [turn for conversation in sample.conversations for turn in conversation.turns]
            assert sample.record in text and all(turn.question in text for turn in turns)
            parts = [part for turn in turns for part in turn.answer]
            assert all(part in text for part in parts if isinstance(part, str))
            assert all(f"<SEG> {part.mask + 1}" in text for part in parts if isinstance(part, TargetSlot))
            assert "<REJ>" in text or not any(isinstance(part, RejectSlot) for part in parts)


def test_pages_show_words_as_they_are_and_overwrite_nothing(check, tmp_path):
    photographs, pages = tmp_path / "photographs", tmp_path / "pages"
    photographs.mkdir()
    cv2.imwrite(str(photographs / "a.png"), np.full((48, 64, 3), 200, np.uint8))
    (photographs / "a.json").write_text(json.dumps(CUSTOM).replace("cup", "<script>&amp;"))
    arguments = ("--dataset", "custom", "--custom_data", photographs, "--samples", 1, "--browse", pages)
    assert check(*arguments)[0] == 0
    text = (pages / "custom" / "page_1.html").read_text()
    assert "<script>" not in text and "&lt;script&gt;&amp;amp;" in text
    picture = cv2.imread(str(pages / "custom" / "00001.jpg"))
    assert picture.shape[1] == 420 and (picture[..., 1] > picture[..., 2] + 40).mean() > 0.1, "the target is green"
    with pytest.raises(OutputExistsError, match="nothing is overwritten"):
        check(*arguments)


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_pages_need_samples(check, tmp_path, value, capsys):
    with pytest.raises(SystemExit):
        check("--browse", tmp_path / "pages", "--samples", value)
    assert "must be a whole number of at least 1" in capsys.readouterr().err
