"""Predictions in files: an evaluation's own give its numbers again, others' are matched by record and question."""

import json
import shutil

import cv2
import numpy as np
import pytest

from anchorseg.evaluation.given import read_predictions, record_key
from anchorseg.evaluation.predictions import Recorder
from anchorseg.evaluation.score_given import score_given
from anchorseg.inference import export
from dataset.drawn.writer import write_scenes
from dataset.readers.folder import DataFolder
from dataset.registry import open_benchmark
from dataset.run_lengths import decode_runs, encode_runs
from scripts import compare, score
from tests.anchorseg.test_evaluation import CASES, Source, evaluator, trained
from utils.errors import DataError, OutputExistsError, SettingsError

assert trained  # a fixture


@pytest.mark.parametrize(("scoring", "protocol"), CASES)
def test_an_evaluations_own_predictions_give_its_numbers_to_the_last_digit(trained, tmp_path, scoring, protocol):
    source, recorder = Source(scoring), Recorder("a|set", protocol)
    result = evaluator(*trained).evaluate(source, name="a|set", protocol=protocol, see=[recorder])
    path = recorder.write(tmp_path)
    assert path.name == f"a_set.{protocol}.jsonl"
    given = read_predictions(path)
    assert given.protocol == protocol
    assert score_given(source, given, name="a|set", protocol=protocol, workers=1).to_dict() == result.to_dict()


def test_run_lengths_are_read_back_exactly():
    rng = np.random.default_rng(0)
    for share in (0.0, 0.3, 1.0):
        mask = rng.random((13, 7)) < share
        assert (decode_runs(json.loads(json.dumps(encode_runs(mask))), 13, 7, "mask") == mask).all()


def test_a_record_is_named_with_or_without_the_suffix_of_its_file():
    assert {record_key(f"/a/b/{name}") for name in ("x.2.json", "x.2.jpg", "x.2")} == {"x.2"}
    assert record_key("/a/MUSE_val.json, record 3") == "MUSE_val.json, record 3"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, counts={"train": 1, "val": 4, "test": 1}, seed=0)
    return folder


@pytest.fixture(scope="module")
def truths(scenes):
    """Name, query and mask of each sample, as anybody else sees them."""
    source = open_benchmark("ReasonSeg|val", DataFolder(scenes, scenes / "index"))
    samples = [source.evaluation_sample(index, protocol="forced") for index in range(len(source))]
    return [(record_key(sample.record), sample.query, sample.truth) for sample in samples]


def polygon(mask):
    """A box around a mask, as a ring."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    (top, bottom), (left, right) = (map(int, (side[0], side[-1])) for side in (rows, columns))
    return [[left, top, right, top, right, bottom, left, bottom]]


FORMS = {
    "masks": lambda name, query, mask: {"record": f"{name}.jpg", "question": 0, "masks": [encode_runs(mask)]},
    "no question": lambda name, query, mask: {"record": name, "segmentation": encode_runs(mask)},
    "words": lambda name, query, mask: {"record": name, "question": query.upper(), "segmentation": encode_runs(mask)},
    "query": lambda name, query, mask: {"record": name, "query": f" {query} ", "segmentation": encode_runs(mask)},
}


def write_lines(path, entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


@pytest.fixture
def scored(scenes, tmp_path):
    def call(path, *flags):
        output = tmp_path / "scores.json"
        output.unlink(missing_ok=True)
        score.main(
            ["--benchmark", "ReasonSeg|val", "--predictions", str(path), "--dataset_dir", str(scenes), "--index_dir",
             str(tmp_path / "index"), "--workers", "0", "--output", str(output), *flags]
        )  # fmt: skip
        return json.loads(output.read_text())["benchmarks"]["ReasonSeg|val"]

    return call


@pytest.mark.parametrize("form", FORMS)
def test_lines_of_ones_own(truths, scored, tmp_path, form):
    entries = [FORMS[form](*truth) for truth in truths]
    result = scored(write_lines(tmp_path / "p.jsonl", reversed(entries)))
    assert list(result) == ["generate"] and result["generate"]["giou"] == 1.0
    (tmp_path / "list.json").write_text(json.dumps(entries))
    assert scored(tmp_path / "list.json") == result


def test_the_results_of_coco_unite_the_objects_of_a_question(truths, scored, tmp_path):
    halves = []
    for name, _, mask in truths:
        parts = [mask.copy(), mask.copy()]
        parts[0][: len(mask) // 2], parts[1][len(mask) // 2 :] = False, False
        halves += [{"image_id": name, "segmentation": encode_runs(part), "score": 0.9} for part in parts]
    (tmp_path / "coco.json").write_text(json.dumps(halves))
    result = scored(tmp_path / "coco.json")["generate"]
    assert result["giou"] == 1.0 and {row["num_masks"] for row in result["rows"]} == {2}
    boxes = [{"image_id": name, "segmentation": polygon(mask)} for name, _, mask in truths]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    assert 0 < scored(tmp_path / "boxes.json")["generate"]["giou"] < 1


@pytest.mark.parametrize("pattern", ["{}.png", "{}_0.png"])
def test_a_folder_of_masks(truths, scored, tmp_path, pattern):
    folder = tmp_path / "masks"
    folder.mkdir()
    for name, _, mask in truths:
        cv2.imwrite(str(folder / pattern.format(name)), 255 * mask.astype(np.uint8))
    assert scored(folder)["generate"]["giou"] == 1.0
    small = folder / pattern.format(truths[1][0])
    cv2.imwrite(str(small), np.zeros((3, 5), np.uint8))
    with pytest.raises(DataError, match=r"has 3 x 5 pixels, but the image has \d+ x \d+"):
        scored(folder)


def test_an_answer_without_a_pixel_says_that_there_is_nothing(truths, scored, tmp_path):
    entries = [{"record": name, "answer": "none", "segmentation": None} for name, _, _ in truths]
    entries[0]["masks"] = [encode_runs(np.zeros_like(truths[0][2]))]
    entries[1]["masks"] = [encode_runs(truths[1][2])]
    result = scored(write_lines(tmp_path / "p.jsonl", entries))["generate"]
    assert [row["found"] for row in result["rows"]] == [False, True, False, False]
    assert result["giou"] == 0.25 and result["rows"][0]["answer"] == "none"


def test_missing_predictions_are_named_or_count_as_empty(truths, scored, tmp_path):
    path = write_lines(tmp_path / "p.jsonl", [FORMS["masks"](*truth) for truth in truths[:2]])
    with pytest.raises(DataError, match=rf"no prediction for question 0 of {truths[2][0]}; .*--missing empty; --list"):
        scored(path)
    assert scored(path, "--missing", "empty")["generate"]["giou"] == 0.5


def changed(**values):
    return lambda entries: [{**entries[0], **values}, *entries[1:]]


REFUSED = {
    "unknown": (
        lambda entries: [*entries, {"record": "nowhere.jpg", "masks": []}],
        r"1 of its predictions are about no question of the benchmark: 'nowhere', question 0 \(.*line 5\)",
    ),
    "twice": (
        lambda entries: [*entries, entries[1]],
        r"line 5: question 0 of .* has a prediction already, at .*line 2",
    ),
    "by words too": (
        lambda entries: [*entries, {"record": entries[0]["record"], "question": "QUERY", "masks": []}],
        r"has a prediction already, at .*line 1",
    ),
    "size": (changed(masks=[{"size": [2, 2], "counts": [4]}]), r"line 1: a run-length mask has size \[2, 2\], but"),
    "runs": (changed(masks=["###"]), r"line 1: a segmentation is str"),
    "masks": (changed(masks="x"), r'"masks" is \'x\'; it must be a list'),
    "question": (changed(question=-1), r'"question" is -1; it must be its number in the record, from 0, or its words'),
    "record": (changed(record=None), r'"record" is None; it must be the name of a record'),
    "found": (changed(found="yes"), r'"found" is \'yes\'; it must be true or false'),
    "index": (changed(index=2), r"sample 2 of the benchmark is .*, but the prediction is about"),
    "negative index": (changed(index=-1), r'"index" is -1 and "question" 0; they must be the numbers'),
    "unfilled": (
        lambda entries: [{"record": "a"}],
        r'line 1: it has neither "masks" nor "segmentation"; .* or \[\] for',
    ),
    "mistyped": (changed(mask={}), r"line 1: it has 'mask', which is not read; leave that out \(allowed: record, "),
    "two forms": (changed(segmentation=[[1, 1, 2, 2, 3, 1]]), r'it has both "masks" and "segmentation"'),
    "benchmark": (changed(benchmark="ReasonSeg|test"), r"is 'ReasonSeg\|test', but 'ReasonSeg\|val' is scored"),
    "protocol": (changed(protocol=["x"]), r"\"protocol\" is \['x'\]; it must be one of forced, symmetric, generate"),
    "protocols": (
        lambda entries: [
            {**each, "protocol": name} for each, name in zip(entries, ["forced", "generate"], strict=False)
        ],
        r"line 2: \"protocol\" is 'generate', but 'forced' before",
    ),
    "query": (changed(query="a unicorn"), r"question 0 of .* is .*, but its \"query\" is 'a unicorn'"),
    "not found": (changed(found=False), r'line 1: "found" is false, but its masks have pixels; leave'),
    "a number": (lambda entries: [*entries, 7], r"line 5: it is 7; a prediction is an object"),
    "nothing": (lambda entries: [], r"it holds no prediction"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_refused_and_named(truths, scored, tmp_path, kind):
    change, message = REFUSED[kind]
    entries = change([FORMS["masks"](*truth) for truth in truths])
    for entry in entries:
        if isinstance(entry, dict) and entry.get("question") == "QUERY":
            entry["question"] = truths[0][1]
    with pytest.raises(DataError, match=message):
        scored(write_lines(tmp_path / "p.jsonl", entries))


def test_names_that_match_nothing_are_shown_with_what_is_missing(truths, scored, tmp_path):
    entries = [{**FORMS["masks"](*truth), "record": f"other_{truth[0]}"} for truth in truths]
    with pytest.raises(
        DataError, match=rf"no prediction for .*{truths[0][0]}.*no question: 'other_.*, question 0 \(.*1\)"
    ):
        scored(write_lines(tmp_path / "p.jsonl", entries))


@pytest.mark.parametrize(
    ("value", "indent", "message"),
    [
        ({"record": "a", "masks": []}, 1, "it is one object over several lines; give a list, or JSON lines"),
        ({"images": [], "annotations": []}, 1, "a whole COCO data set, but must be a list or JSON lines"),
        ({"images": [], "annotations": []}, None, "a whole COCO data set, but must be a list or JSON lines"),
    ],
)
def test_an_object_that_is_no_line_is_named(tmp_path, value, indent, message):
    path = tmp_path / "p.json"
    path.write_text(json.dumps(value, indent=indent))
    with pytest.raises(DataError, match=message):
        read_predictions(path)


def test_answers_of_predict_are_scored(truths, scored, tmp_path):
    entries = [
        {"image_id": number, "image": f"/photos/{name}.jpg", "height": 1, "width": 1, "question": 1, "query": query,
         "prompt": "p", "text": "It is <SEG>.", "complete": number > 1,
         "targets": [{**export.run_lengths(mask), "score": 0.5, "phrase": None}]}
        for number, (name, query, mask) in enumerate(truths, start=1)
    ]  # fmt: skip
    result = scored(write_lines(tmp_path / "answers.jsonl", entries))["generate"]
    assert result["giou"] == 1.0 and [row["cut"] for row in result["rows"]] == [True, False, False, False]
    error = {"image_id": 1, "image": "a.jpg", "error": "no picture"}
    with pytest.raises(DataError, match=r"an image that could not be used, 'no picture'"):
        scored(write_lines(tmp_path / "answers.jsonl", [error, *entries]))


def test_outputs_are_checked_and_their_folders_made_before_the_work(truths, scored, tmp_path):
    path = write_lines(tmp_path / "p.jsonl", [FORMS["masks"](*truth) for truth in truths])
    deep = tmp_path / "new" / "deep"
    assert scored(path, "--report", str(deep / "a#b?c%20.html"))["generate"]["giou"] == 1.0
    assert (deep / "a#b?c%20.html").is_file()
    with pytest.raises(SettingsError, match=r"--report .*: the folder .*p\.jsonl is a file"):
        scored(path, "--report", str(path / "r.html"))
    mine = tmp_path / "rep" / "ReasonSeg_val" / "generate" / "p.jsonl"
    mine.parent.mkdir(parents=True)
    shutil.copy(path, mine)
    with pytest.raises(OutputExistsError, match=r"rep exists, but the pictures of --report .*rep\.html go there"):
        scored(mine, "--report", str(tmp_path / "rep.html"))
    assert mine.is_file()


def test_text_that_is_no_json_is_refused(scored, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"record": "a"\n')
    with pytest.raises(DataError, match=r"p\.jsonl, line 1: "):
        scored(tmp_path / "p.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.png"):
        scored(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        scored(tmp_path / "nowhere.jsonl")


def test_two_samples_of_one_name_are_told_apart_by_their_index(trained, tmp_path):
    class Same(Source):
        def evaluation_sample(self, index, *, protocol):
            import dataclasses

            return dataclasses.replace(super().evaluation_sample(index, protocol=protocol), record="same")

    one = {"record": "same", "question": 0, "masks": []}
    ask = {"name": "set", "protocol": "forced"}
    with pytest.raises(DataError, match=r'fits two questions of the benchmark, .* tell them apart by "index"'):
        score_given(Same("reason"), read_predictions(write_lines(tmp_path / "a", [one])), **ask)
    both = write_lines(tmp_path / "b", [{**one, "index": index} for index in range(2)])
    assert len(score_given(Same("reason"), read_predictions(both), **ask).rows) == 2


def test_the_list_of_questions_is_a_file_to_be_filled_in(truths, scored, scenes, tmp_path, capsys):
    path = tmp_path / "questions.jsonl"
    flags = ["--benchmark", "ReasonSeg|val", "--dataset_dir", str(scenes), "--index_dir", str(tmp_path / "index")]
    score.main([*flags, "--list", str(path)])
    with pytest.raises(DataError, match=r'line 1: it has neither "masks" nor "segmentation"'):
        scored(path)
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [entry["query"] for entry in entries] == [query for _, query, _ in truths]
    for entry, (_, _, mask) in zip(entries, truths, strict=True):
        assert entry["size"] == list(mask.shape)
        entry["masks"] = [encode_runs(mask)]
    assert scored(write_lines(path, entries))["generate"]["giou"] == 1.0
    shutil.copy(tmp_path / "scores.json", tmp_path / "b.json")
    compare.main([str(tmp_path / "scores.json"), str(tmp_path / "b.json")])
    assert "+0.0000  [+0.0000, +0.0000]" in capsys.readouterr().out
    with pytest.raises(OutputExistsError, match="is not overwritten"):
        score.main([*flags, "--predictions", str(path), "--output", str(tmp_path / "b.json")])


def test_what_to_do_must_be_said():
    for flags in ([], ["--list", "a", "--predictions", "b"], ["--predictions", "b", "--output", "a.txt"]):
        with pytest.raises(SettingsError):
            score.main(["--benchmark", "ReasonSeg|val", *flags])
