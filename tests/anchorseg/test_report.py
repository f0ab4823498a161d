"""report.html: well-formed, escaped, with every question, its pictures bounded in number and kept by --resume."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from urllib.parse import unquote

import numpy as np
import pytest

import eval_reasonseg
from anchorseg.evaluation.evaluator import predictions, result_of
from anchorseg.evaluation.pictures import FixedPictures, Gallery
from anchorseg.evaluation.report import write_pictures, write_report
from anchorseg.evaluation.scoring import SCORINGS, Reply
from anchorseg.weights.folder import save_model
from dataset.drawn.writer import write_scenes
from dataset.sample import Question, Sample
from tests.conftest import make_model
from tests.test_quickstart_page import Reader
from utils.errors import DataError

HOSTILE = "</script><script>document.title = 'taken'</script> <!-- <b>&amp; "
ASKED = ("set|val", "generate")


def answered(count, *, seed=0):
    """Predictions about noise: every third question has no target, every fourth answer no mask."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        masks = np.zeros((1, 20, 30), bool)
        masks[0, 2:12, 3:20] = index % 3 != 0
        sample = Sample(
            record=f"/data/{index}.json",
            image=rng.integers(0, 256, (20, 30, 3)).astype(np.uint8),
            conversations=(),
            masks=masks,
            questions=(Question(f"{HOSTILE}{index}", (0,) if index % 3 else ()),),
        )
        drawn = masks & (rng.random((1, 20, 30)) < 0.2 + 0.7 * rng.random()) if index % 3 else ~masks
        found = index % 4 != 3
        reply = Reply(masks=drawn if found else drawn[:0], found=found, answer=f"<SEG> {index}", cut=index == 7)
        yield from predictions(SCORINGS["gres"], index, sample, [reply])


def written(path, count, most=3):
    gallery, rows = Gallery(most), []
    for prediction in answered(count):
        gallery(prediction)
        rows.append(prediction.row)
    entry = result_of(SCORINGS["gres"], rows, benchmark=ASKED[0], protocol=ASKED[1], leaks=False).to_dict()
    write_pictures(path, ASKED, gallery.of_all_ranks())
    write_report(path, "Evaluation", {ASKED: entry})
    return rows, entry


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert not reader.open
    return reader


def content(path):
    (text,) = re.findall(r'<script type="application/json">(.*?)</script>', path.read_text(), flags=re.DOTALL)
    return json.loads(text)


def test_a_report_holds_every_question_and_the_telling_pictures(tmp_path):
    path = tmp_path / "report.html"
    rows, entry = written(path, 40)
    reader = read(path)
    low, high = entry["intervals"]["giou"]
    assert f"{entry['giou']:.4f} ({low:.4f} to {high:.4f})" in reader.said
    table = content(path)
    titles = [column["title"] for column in table["columns"]]
    assert [row[titles.index("query")] for row in table["rows"]] == [row.query for row in rows]
    assert [row[titles.index("IoU")] for row in table["rows"]] == [row.iou for row in rows]
    missed = sum(row.has_target and not row.found for row in rows)
    invented = sum(row.found and not row.has_target for row in rows)
    assert f"{missed} of 26" in reader.said and f"{invented} of 14" in reader.said and "1 of 40" in reader.said
    assert len(reader.pictures) == 4 * 3 and all((tmp_path / picture).is_file() for picture in reader.pictures)
    drawn = sorted((row.iou, row.index) for row in rows if row.has_target and row.found)
    shown = json.loads((tmp_path / "report" / "set_val" / "generate" / "pictures.json").read_text())
    assert [each["index"] for each in shown if each["group"] == "worst"] == [index for _, index in drawn[:3]]
    assert [each["iou"] for each in shown if each["group"] == "best"] == [iou for iou, _ in drawn[:-4:-1]]


def test_what_a_question_holds_is_never_markup(tmp_path):
    path = tmp_path / "report.html"
    written(path, 4)
    text = path.read_text(encoding="utf-8")
    assert "<script>document" not in text and "<b>" not in text
    assert text.count("</script>") == 2


def test_pictures_of_other_rows_are_not_shown(tmp_path):
    path = tmp_path / "report.html"
    rows, entry = written(path, 8)
    again = [replace(row, pairs=((1, 9),)) for row in rows]
    entry = result_of(SCORINGS["gres"], again, benchmark=ASKED[0], protocol=ASKED[1], leaks=False).to_dict()
    write_report(path, "Evaluation", {ASKED: entry})
    assert not read(path).pictures
    (tmp_path / "report" / "set_val" / "generate" / "pictures.json").write_text('[{"group": 3}]')
    write_report(path, "Evaluation", {ASKED: entry})


def test_only_the_pictures_of_an_earlier_report_are_removed(tmp_path):
    path, folder = tmp_path / "report.html", tmp_path / "report" / "set_val" / "generate"
    written(path, 40)
    (folder / "mine.txt").write_text("mine")
    (tmp_path / "outside.jpg").write_text("mine")
    shown = json.loads((folder / "pictures.json").read_text())
    shown.append({**shown[0], "file": "../../../outside.jpg"})
    (folder / "pictures.json").write_text(json.dumps(shown))
    written(path, 8)
    assert (folder / "mine.txt").exists() and (tmp_path / "outside.jpg").exists()
    left = {each["file"] for each in json.loads((folder / "pictures.json").read_text())}
    assert {file.name for file in folder.iterdir()} == {*left, "pictures.json", "mine.txt"}


def test_addresses_of_pictures_are_quoted(tmp_path):
    path = tmp_path / "a#b?c%20.html"
    written(path, 8)
    linked = [row[-1] for row in content(path)["rows"] if row[-1]]
    addresses = [*read(path).pictures, *linked]
    assert linked and all((tmp_path / unquote(address)).is_file() for address in addresses)
    assert not any(letter in address for letter in "#?" for address in addresses)


def test_few_pictures_are_held_however_many_are_seen():
    gallery = Gallery(2)
    for prediction in answered(60):
        gallery(prediction)
    assert {group: len(shown) for group, shown in gallery.of_all_ranks().items()} == dict.fromkeys(
        ("worst", "best", "missed", "invented"), 2
    )


@pytest.mark.parametrize(
    ("length", "count", "indices"), [(10, 4, {0, 3, 6, 9}), (2, 4, {0, 1}), (5, 1, {0}), (5, 0, ())]
)
def test_fixed_samples_are_evenly_spread(length, count, indices):
    pictures = FixedPictures(length, count)
    for prediction in answered(length):
        pictures(prediction)
    assert set(pictures.of_all_ranks()) == set(indices)


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_scenes(folder / "data", counts={"train": 1, "val": 3, "test": 2}, seed=0)
    save_model(*make_model(), folder / "model")

    def call(benchmarks, *flags):
        eval_reasonseg.main(
            ["--version", str(folder / "model"), "--dataset_dir", str(folder / "data"), "--index_dir",
             str(folder / "index"), "--val_dataset", benchmarks, "--protocol", "forced", "--workers", "0",
             "--output_dir", str(folder / "out"), "--report", *flags]
        )  # fmt: skip
        return folder / "out" / "report.html"

    return call


def test_scores_that_are_kept_keep_their_pictures(evaluate):
    path = evaluate("ReasonSeg|val")
    assert len(read(path).pictures) == 2 * 3
    pictures = sorted((path.parent / "report" / "ReasonSeg_val").rglob("*.jpg"))
    before = [picture.stat().st_mtime_ns for picture in pictures]
    assert evaluate("ReasonSeg|val||ReasonSeg|test", "--resume") == path
    reader = read(path)
    assert len(reader.pictures) == 2 * 3 + 2 * 2 and len(content(path)["rows"]) == 5
    assert [picture.stat().st_mtime_ns for picture in pictures] == before


def test_predictions_that_kept_scores_have_not_are_said(evaluate, tmp_path, capsys):
    evaluate("ReasonSeg|test", "--save_predictions", str(tmp_path))
    evaluate("ReasonSeg|val")
    evaluate("ReasonSeg|val||ReasonSeg|test", "--resume", "--save_predictions", str(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["ReasonSeg_test.forced.jsonl"]
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1 and "ReasonSeg|val forced is kept, and its predictions are not in" in warnings[0]


def test_rows_that_no_evaluation_writes_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"rows of set\|val, generate are not as an evaluation writes them"):
        write_report(tmp_path / "report.html", "Evaluation", {ASKED: {"giou": 0.5, "rows": [{"index": 0}]}})


def in_a_browser(path, script=""):
    """The document as a browser has it, after a script of ours."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser is here")
    used = path.with_name("used.html")
    used.write_text(path.read_text(encoding="utf-8").replace("</body>", f"<script>{script}</script></body>"))
    done = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", f"--user-data-dir={path.parent / 'profile'}", "--dump-dom",
         "--virtual-time-budget=3000", used.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout


def test_a_browser_shows_filters_and_pages(tmp_path):
    path = tmp_path / "report.html"
    written(path, 250)
    dom = in_a_browser(path)
    assert "250 of 250 rows" in dom and "<title>Evaluation</title>" in dom
    assert dom.count("<tr>") >= 200 and "IoU from" in dom and "more rows" in dom


USE = """
const head = [...document.querySelectorAll(".scroll th")], field = label =>
  [...document.querySelectorAll(".filters label")].find(each => each.firstChild.data === label).lastChild;
function set(label, value) { field(label).value = value; field(label).dispatchEvent(new Event("input")); }
set("target", [...field("target").options].find(option => option.text === "target").value);
set("IoU from", "0.3");
set("text", "script  document");
const iou = head.findIndex(each => each.textContent === "IoU");
head[iou].click();
head[iou].click();
document.title = [...document.querySelectorAll(".scroll tbody tr")].map(row => row.cells[iou].textContent).join(" ");
"""


def test_a_browser_filters_and_sorts(tmp_path):
    path = tmp_path / "report.html"
    rows, _ = written(path, 60)
    (title,) = re.findall("<title>(.*?)</title>", in_a_browser(path, USE))
    wanted = sorted((row.iou for row in rows if row.has_target and row.iou >= 0.3), reverse=True)
    assert title.split() == [f"{iou:.3f}" for iou in wanted] and 10 < len(wanted) < 40
